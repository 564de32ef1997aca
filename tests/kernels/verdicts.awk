# What one boot said, as lines of fields: kind, kernel, run, then
#   kernel   (no run) its release
#   case     name, ok | FAILED | skipped, why
#   detail   name of a case, one line of what it said when it failed
#   backend  the backend in use
#   feature  name, yes | no, hook, note
#   unused   a hook that was not used, why
#   program  name, hook, instructions that the verifier went through (0 where the kernel does not say)
#
#   awk -v kernel=6.1 -v runs="fentry kprobe" -v may_skip=fentry -v end="" -f verdicts.awk OUTPUT
#
# A run in which the programs were never loaded has tested nothing and has failed, unless it is
# among may_skip.
# The output holds, per run, "== run NAME", the words of a libtest program (--test-threads=1
# --show-output), and "== end NAME CODE". Words of other programs may stand between those of
# libtest, also between the name of a test and its verdict. `end` says why the guest ended early.

BEGIN {
    FS = "\n"
    OFS = "\t"
}

{
    gsub(/\r/, "")
    gsub(/[^\t -~\200-\377]/, "?")
}

/^== release / { print "kernel", kernel, substr($0, 12); next }
/^== run / { begin(substr($0, 8)); next }
/^== end / { finish($0); next }
/^== kernel / { complain(substr($0, 11)); next }
run == "" { next }

# "test NAME ... ok", or the verdict on a line of its own after what others said.
part == "" && /^test [^ ]+ \.\.\. / {
    name = $0
    sub(/^test /, "", name)
    sub(/ \.\.\. .*/, "", name)
    sub(/^test [^ ]+ \.\.\. /, "")
    names[++count] = name
    verdict[name] = ""
}
part == "" && count && verdict[names[count]] == "" && /^(ok|FAILED|ignored.*)$/ {
    verdict[names[count]] = $0
    next
}
/^successes:$/ { part = "successes"; next }
/^failures:$/ { part = "failures"; test = ""; next }
/^test result: / { result = $0; part = "result"; next }
part != "" && /^---- .* stdout ----$/ {
    test = $0
    sub(/^---- /, "", test)
    sub(/ stdout ----$/, "", test)
    next
}
part == "successes" && /^skipped: / && !(test in why) { why[test] = substr($0, 10) }
part != "" && /^report\t/ {
    split($0, field, "\t")
    loaded = 1
    print field[2], kernel, run, substr($0, length("report\t" field[2] "\t") + 1)
    next
}
part == "failures" && test != "" && !/^ *$/ && !/^note: run with/ && ++said[test] <= 40 {
    print "detail", kernel, run, test, $0
}

END {
    if (run != "")
        finish("== end " run " without a code")
    split(runs, expected, " ")
    for (i in expected)
        if (!(expected[i] in begun))
            print "case", kernel, expected[i], "(the run)", "FAILED", "not begun: " end
}

function begin(name) {
    run = name
    begun[run] = 1
    count = 0
    part = test = result = loaded = ""
    split("", verdict)
    split("", why)
    split("", said)
}

function finish(line,    code, i, passed, failed, reason) {
    code = line
    sub(/^== end [^ ]* /, "", code)
    if (code != "without a code")
        code = "with code " code
    for (i = 1; i <= count; i++) {
        name = names[i]
        reason = ""
        if (verdict[name] ~ /^ignored/) {
            reason = verdict[name] == "ignored" ? "ignored" : substr(verdict[name], 10)
            verdict[name] = "skipped"
        } else if (verdict[name] == "ok") {
            passed++
            if (name in why) {
                verdict[name] = "skipped"
                reason = why[name]
            }
        } else {
            if (verdict[name] == "")
                reason = "did not end" (end == "" ? "" : ": " end)
            else
                failed++
            verdict[name] = "FAILED"
        }
        print "case", kernel, run, name, verdict[name], reason
    }
    if (result == "") {
        reason = "ended " code (end == "" ? "" : ": " end)
        print "case", kernel, run, "(the run)", "FAILED", reason
    } else if (index(result, " " passed + 0 " passed; " failed + 0 " failed;") == 0)
        print "case", kernel, run, "(the run)", "FAILED", "not understood: " result
    else if (!loaded && index(" " may_skip " ", " " run " ") == 0)
        print "case", kernel, run, "(the run)", "FAILED", "this kernel has it, yet nothing was loaded"
    run = ""
}

# A warning in the kernel's log is nobody's test, and nobody's to ignore.
function complain(line) {
    split(runs, expected, " ")
    print "case", kernel, expected[1], "(the kernel's log)", "FAILED", line
}
