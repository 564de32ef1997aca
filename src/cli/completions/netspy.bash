# Completes netspy, which itself knows its commands, options, values and the names that were seen.
_netspy() {
    local -a found
    local begun=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]/#\~/$HOME}
    COMPREPLY=()
    mapfile -t found < <(
        "$program" complete --shell bash --breaks "$COMP_WORDBREAKS" -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null
    )
    [[ $begun =~ ^[=:]+$ ]] && begun=
    case ${found[0]-} in
        words)
            COMPREPLY=("${found[@]:1}")
            ;;
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$begun")
            ;;
        command\ *)
            # Bash has cut words at = and : already.
            local -i i word=0 first=${found[0]#command }
            for ((i = 1; i < COMP_CWORD; i++)); do
                [[ ${COMP_WORDS[i]} =~ ^[=:]+$ || ${COMP_WORDS[i - 1]} =~ ^[=:]+$ ]] || ((++word))
                ((word >= first)) && break
            done
            if declare -F _command_offset >/dev/null; then
                _command_offset "$i"
            elif ((i == COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$begun")
            else
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$begun")
            fi
            ;;
    esac
}
complete -F _netspy netspy
