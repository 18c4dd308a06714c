#!/bin/sh
# Runs the end-to-end tests between servers of different versions, and prints what came of it:
#
#   matrix.sh                 between all the pairs below
#   matrix.sh 15:17 17:15     between these (source:target, as fetch.sh names their directories)
#
# Exit status 1 if a test failed. The output of each pair is in target/matrix.
set -u
cd "$(dirname "$0")/../.." || exit 1

PAIRS="14:17 15:16 15:17 15:18 17:17 17:15 18:15 16:18 14:14 18:18 vector-16:vector-18"

# What has little to do with the server's version.
ANY="load memory messages proxy refuse_resources service torture"
# The tests of one server alone that a migration has no part in: where both have the same version.
SINGLE="cluster connect demo examples"
# What mostly waits, for the daemon's next attempt or for a deadline: beside the rest.
WAITING="copy_failures operate refuse_later refuse_outside stream_target"
# Between servers with pgvector, which have no other contrib and no TLS: what carries rows.
VECTOR="vector types stream stream_examples stream_partitions copy copy_moves"

log=target/matrix
table=$log/results
mkdir -p "$log"
printf 'pair\tservers\ttests\tpassed\tseconds\t\n' >"$table"

# The version that the server in this directory says it has.
version() {
    "target/servers/$1/bin/postgres" --version | sed 's/.*(PostgreSQL) //; s/ .*//'
}

# The test files for this pair.
tests() {
    case $1:$2 in
    vector-*) echo "$VECTOR" ;;
    *)
        for file in tests/*.rs tests/*/main.rs; do
            test=${file#tests/}
            test=${test%/main.rs}
            test=${test%.rs}
            case " $ANY vector $([ "$1" = "$2" ] || echo "$SINGLE") " in
            *" $test "*) ;;
            *) echo "$test" ;;
            esac
        done
        ;;
    esac
}

# Runs the tests of one pair, and adds a line to the table.
run() {
    source=$1
    target=$2
    out=$log/$source-$target.log
    echo "$source -> $target: $(tests "$source" "$target" | xargs)"
    waiting=
    working=
    for test in $(tests "$source" "$target"); do
        case " $WAITING " in
        *" $test "*) waiting="$waiting --test $test" ;;
        *) working="$working --test $test" ;;
        esac
    done
    export CDC_PG_BIN="$PWD/target/servers/$target/bin"
    export CDC_SOURCE_PG_BIN="$PWD/target/servers/$source/bin"
    export CDC_TARGET_PG_BIN="$CDC_PG_BIN"
    start=$(date +%s)
    # shellcheck disable=SC2086 # each is a word
    {
        { [ -z "$waiting" ] || cargo test --locked --no-fail-fast $waiting; } >"$out.waiting" 2>&1 &
        cargo test --locked --no-fail-fast $working >"$out" 2>&1
        status=$?
        wait $! || status=1
    }
    cat "$out.waiting" >>"$out" && rm "$out.waiting"
    seconds=$(($(date +%s) - start))
    passed=$(grep -c '^test .* \.\.\. ok$' "$out")
    failed=$(grep -c '^test .* \.\.\. FAILED$' "$out")
    if [ $status = 0 ]; then verdict=ok; else verdict=FAILED; fi
    printf '%s -> %s\t%s -> %s\t%s\t%s\t%s\t%s\n' "$source" "$target" "$(version "$source")" "$(version "$target")" \
        $((passed + failed)) "$passed" "$seconds" "$verdict" >>"$table"
    if [ $status != 0 ]; then
        grep -E '^(test .* \.\.\. FAILED|error)' "$out" | sed 's/^/  /'
        echo "  (all of it: $out)"
    fi
}

[ $# = 0 ] && set -- $PAIRS
for pair in "$@"; do
    # The clients of vector-18 are everybody's.
    for server in vector "${pair%:*}" "${pair#*:}"; do
        tests/servers/fetch.sh "${server%-1[0-9]}" || exit 1
    done
done
for pair in "$@"; do
    run "${pair%:*}" "${pair#*:}"
done
echo
expand -t 24,44,52,60,70 "$table"
! grep -q 'FAILED$' "$table"
