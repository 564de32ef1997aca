# Completes netspy, which itself knows its commands, options, values and the names that were seen.
function __netspy_complete
    set -l done (commandline -opc)
    set -l begun (commandline -ct)
    set -l plain (string replace -r '^["\']' '' -- $begun)
    set -l found (command $done[1] complete --shell fish -- $done "$plain" 2>/dev/null)
    switch "$found[1]"
        case words
            string join \n -- $found[2..-1]
        case files
            set -l option (string match -r '^--[^=]*=' -- $begun)
            for path in (complete -C "'' "(string replace -r '^--[^=]*=' '' -- $begun))
                echo "$option$path"
            end
        case 'command *'
            set -l first (math (string replace 'command ' '' -- $found[1]) + 1)
            set -l inner
            if test (count $done) -ge $first
                set inner (string escape -- $done[$first..-1])
            end
            complete -C (string join ' ' -- $inner "$begun")
    end
end
complete -c netspy -f -a '(__netspy_complete)'
