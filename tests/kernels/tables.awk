# Tables of what verdicts.awk found, for a terminal (form=text) or for docs/kernels.md (form=docs).

BEGIN {
    FS = "\t"
}

$1 == "kernel" { release[$2] = $3; add(kernels, seen_kernel, $2); next }
{ add(runs, seen_run, $3) }
$1 == "case" {
    add(cases, seen_case, $4)
    verdict[$4, $2, $3] = $5
    total[$5]++
    if ($6 != "" && $5 != "ok") {
        add(reasons, seen_reason, $6)
        with_reason[$6] = append(with_reason[$6], $2 " " $3 SUBSEP $4)
        verdict_of[$6] = $5
        reason[$4, $2, $3] = seen_reason[$6]
    }
}
$1 == "detail" {
    # Where it happened is in the line before.
    key = $2 SUBSEP $3 SUBSEP $4
    if (!(key in said))
        add(failures, seen_failure, key)
    said[key] = append(said[key], "    " $5)
}
$1 == "feature" {
    add(features, seen_feature, $4)
    what = ($5 == "yes" ? "" : "**no**") ($5 == "yes" || $6 == "" ? "" : " ") ($6 == "" ? "" : "`" $6 "`")
    what = what ($7 == "" ? "" : " ") $7
    if (!(($4, what) in where_feature))
        add(whats, seen_what, $4 SUBSEP what)
    where_feature[$4, what] = append(where_feature[$4, what], $2 SUBSEP $3)
}
$1 == "unused" {
    what = "`" $4 "`: " $5
    add(unused, seen_unused, what)
    where_unused[what] = append(where_unused[what], $2 SUBSEP $3)
}
$1 == "program" {
    add(programs, seen_program, $4)
    insns[$4, $2, $3] = $6
}

END {
    if (form == "docs")
        write_docs()
    else
        write_text()
}

# Appends what is new to a list, list[0] long, and numbers it in `seen`.
function add(list, seen, item) {
    if (!(item in seen)) {
        list[++list[0]] = item
        seen[item] = list[0]
    }
}

function append(lines, item) {
    return lines == "" ? item : lines "\n" item
}

function letter(word) {
    return word == "ok" ? "+" : word == "FAILED" ? "F" : word == "skipped" ? "-" : " "
}

# Where something holds: "5.10, 6.1: all runs; 6.12: fentry kprobe".
function places(list,    n, item, pair, k, of, said, line, all, i, j) {
    n = split(list, item, "\n")
    for (j = 1; j <= runs[0]; j++)
        all = all (j == 1 ? "" : " ") runs[j]
    for (i = 1; i <= n; i++) {
        split(item[i], pair, SUBSEP)
        of[pair[1]] = of[pair[1]] (of[pair[1]] == "" ? "" : " ") pair[2]
    }
    for (i = 1; i <= kernels[0]; i++) {
        k = kernels[i]
        if (of[k] == "" || k in said)
            continue
        line = line (line == "" ? "" : "; ") k
        for (j = i + 1; j <= kernels[0]; j++)
            if (of[kernels[j]] == of[k]) {
                said[kernels[j]] = 1
                line = line ", " kernels[j]
            }
        line = line ": " (of[k] == all ? "all runs" : of[k])
    }
    return line
}

# The instructions of a program in one run of each kernel, as one row; "" if it was in none.
function row(program, run, separator,    i, line, any) {
    for (i = 1; i <= kernels[0]; i++) {
        if ((program, kernels[i], run) in insns)
            any = 1
        line = line separator sprintf("%7s", insns[program, kernels[i], run] + 0 ? insns[program, kernels[i], run] : "")
    }
    return any ? line : ""
}

# Rows of a program, those of several runs in one where they are equal.
function rows(program, separator, found,    i, line) {
    found[0] = 0
    split("", found_runs)
    for (i = 1; i <= runs[0]; i++) {
        line = row(program, runs[i], separator)
        if (line == "")
            continue
        if (!(line in found_runs))
            found[++found[0]] = line
        found_runs[line] = found_runs[line] (found_runs[line] == "" ? "" : " ") runs[i]
    }
}

# What failed tests said, once for all that said the same.
function write_details(    k, pair, words, line, groups, n) {
    for (k = 1; k <= failures[0]; k++) {
        split(failures[k], pair, SUBSEP)
        words = said[failures[k]]
        # Without the name of the test and its thread.
        sub(/thread '[^']*' (\([0-9]+\) )?/, "", words)
        add(groups, seen_group, words)
        n[words]++
        if (n[words] <= 3)
            cases_of[words] = append(cases_of[words], pair[1] ", " pair[2] ": " pair[3])
    }
    for (k = 1; k <= groups[0]; k++) {
        words = groups[k]
        line = n[words] > 3 ? "\nand " n[words] - 3 " more" : ""
        print cases_of[words] line "\n" words
    }
}

# Once more by itself, as the end of long output is read first: up to an empty line.
function write_failures(    k, item, n, i) {
    if (!total["FAILED"])
        return
    print "\nFailures:"
    for (k = 1; k <= reasons[0]; k++) {
        if (verdict_of[reasons[k]] == "skipped")
            continue
        n = split(with_reason[reasons[k]], item, "\n")
        for (i = 1; i <= n; i++) {
            sub(SUBSEP, ": ", item[i])
            print item[i] ": " reasons[k]
        }
    }
    write_details()
    print ""
}

function write_text(    i, j, k, line, found, n, item, pair, of, gap) {
    # The numbers of series have four characters at most.
    gap = substr("     ", 1, runs[0] < 4 ? 5 - runs[0] : 1)
    print "\nVerdicts: + ok, F failed, - skipped"
    for (j = 1; j <= runs[0]; j++)
        printf "%s%s %s", (j == 1 ? "columns: " : ", "), substr(runs[j], 1, 1), runs[j]
    printf "\n\n"
    for (i = 1; i <= kernels[0]; i++)
        printf "%s", substr(kernels[i] "     ", 1, runs[0] + length(gap))
    print " kernel"
    for (i = 1; i <= kernels[0]; i++) {
        for (j = 1; j <= runs[0]; j++)
            printf "%s", substr(runs[j], 1, 1)
        printf "%s", gap
    }
    print " case"
    for (k = 1; k <= cases[0]; k++) {
        line = ""
        for (i = 1; i <= kernels[0]; i++) {
            for (j = 1; j <= runs[0]; j++)
                line = line letter(verdict[cases[k], kernels[i], runs[j]])
            line = line gap
        }
        print line " " cases[k]
    }
    if (programs[0]) {
        printf "\n%-24s", "Verified instructions"
        for (i = 1; i <= kernels[0]; i++)
            printf " %7s", kernels[i]
        print "  runs"
    }
    for (k = 1; k <= programs[0]; k++) {
        rows(programs[k], " ", found)
        for (i = 1; i <= found[0]; i++)
            printf "%-24s%s  %s\n", programs[k], found[i], found_runs[found[i]]
    }
    if (reasons[0])
        print ""
    for (k = 1; k <= reasons[0]; k++) {
        n = split(with_reason[reasons[k]], item, "\n")
        split("", of)
        line = ""
        for (i = 1; i <= n; i++) {
            split(item[i], pair, SUBSEP)
            if (of[pair[1]]++ == 0)
                line = line (line == "" ? "" : ", ") pair[1]
        }
        printf "%s %s (%d: %s)\n", verdict_of[reasons[k]] == "skipped" ? "skipped:" : "FAILED:", \
            reasons[k], n, line
    }
    write_failures()
}

function escape(word) {
    gsub(/\|/, "\\|", word)
    gsub(/</, "\\&lt;", word)
    return word
}

# One kernel's verdicts on one case: "ok", or what other verdict which runs had.
function cell(name, k,    j, v, of, order, n, line, i) {
    for (j = 1; j <= runs[0]; j++) {
        v = verdict[name, k, runs[j]]
        if (v == "")
            continue
        if (v != "ok" && (name, k, runs[j]) in reason)
            v = v " [" reason[name, k, runs[j]] "]"
        if (!(v in of))
            order[++n] = v
        of[v] = of[v] (of[v] == "" ? "" : ", ") runs[j]
    }
    if (n == 1)
        return order[1]
    for (i = 1; i <= n; i++)
        if (order[i] != "ok")
            line = line (line == "" ? "" : "; ") of[order[i]] ": " order[i]
    return ("ok" in of ? "ok, but " : "") line
}

function header(first,    i) {
    printf "| %s |", first
    for (i = 1; i <= kernels[0]; i++)
        printf " %s |", kernels[i]
    printf "\n|---|"
    for (i = 1; i <= kernels[0]; i++)
        printf "---|"
    print ""
}

function write_docs(    i, k, pair, found, line) {
    print "| series | kernel |\n|---|---|"
    for (i = 1; i <= kernels[0]; i++)
        print "| " kernels[i] " | " release[kernels[i]] " |"
    printf "\n%d verdicts: %d ok, %d skipped, %d failed.\n", total["ok"] + total["skipped"] + total["FAILED"], \
        total["ok"], total["skipped"], total["FAILED"]
    print "\n### Verdicts\n"
    header("case")
    for (k = 1; k <= cases[0]; k++) {
        line = "| `" cases[k] "` |"
        for (i = 1; i <= kernels[0]; i++)
            line = line " " cell(cases[k], kernels[i]) " |"
        print line
    }
    if (reasons[0])
        print ""
    for (k = 1; k <= reasons[0]; k++)
        print "- [" k "] " escape(reasons[k])
    print "\n### Features\n\n| feature | hook, and what is limited | where |\n|---|---|---|"
    for (i = 1; i <= features[0]; i++)
        for (k = 1; k <= whats[0]; k++) {
            split(whats[k], pair, SUBSEP)
            if (pair[1] == features[i])
                print "| " pair[1] " | " escape(pair[2]) " | " places(where_feature[pair[1], pair[2]]) " |"
        }
    if (unused[0])
        print "\n### Hooks that were not used\n\n| hook, and why | where |\n|---|---|"
    for (k = 1; k <= unused[0]; k++)
        print "| " escape(unused[k]) " | " places(where_unused[unused[k]]) " |"
    print "\n### Instructions that the verifier went through\n"
    header("program and runs")
    for (k = 1; k <= programs[0]; k++) {
        rows(programs[k], " | ", found)
        for (i = 1; i <= found[0]; i++) {
            line = found[i]
            gsub(/  +/, " ", line)
            sub(/^ \| /, "", line)
            print "| `" programs[k] "`: " found_runs[found[i]] " | " line " |"
        }
    }
}
