#compdef netspy
# Completes netspy, which itself knows its commands, options, values and the names that were seen.
_netspy() {
    local -a found entries
    local line word help
    found=("${(@f)$("${(Q)words[1]/#\~/$HOME}" complete --shell zsh -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $found[1] in
        words)
            for line in "${(@)found[2,-1]}"; do
                word=${line%%$'\t'*} help=${line#*$'\t'}
                # A colon parts the two, and a backslash keeps it from that.
                word=${${word//\\/\\\\}//:/\\:}
                entries+=("$word${help:+:$help}")
            done
            _describe -V netspy entries
            ;;
        files)
            compset -P '--[^=]##='
            _files
            ;;
        command\ *)
            local -i first=${found[1]#command }
            shift $first words
            ((CURRENT -= first))
            _normal
            ;;
    esac
}
if [[ $funcstack[1] == _netspy ]]; then
    _netspy "$@"
else
    compdef _netspy netspy
fi
