# Runs one server, and sees to it that the server does not outlive the process that asked for it.
#
# Arguments: the cluster's directory, its data directory, and the server's command line.
# Standard input: lines with the name of a signal for the server, or `crash`. When it closes, the
# process at its other end is done with the cluster, or dead: everything is ended and removed.
# Exits, with the server's status, when no process of the cluster is left.

home=$1
data=$2
shift 2

# Every process of a server works in its data directory, whatever its session, group or parent is.
# (Backends lead sessions of their own; the signal for the server's group would not reach them.)
members() {
    for process in /proc/[0-9]*; do
        if [ "$process/cwd" -ef "$data" ]; then echo "${process#/proc/}"; fi
    done
}

# A stopped postmaster starts no new backend while we look for those that are there.
crash() {
    kill -STOP "$server"
    kill -KILL "$server" $(members)
} 2>/dev/null

# Ends what is left, until nothing is.
finish() {
    while left=$(members) && [ -n "$left" ]; do
        kill -KILL $left
    done
} 2>/dev/null

# What the server has outside its directory, shared memory, only it can remove: it is asked first, and given five
# seconds. What is left of one that crashed is in its pid file (line 7: key and id).
end() {
    kill -CONT $(members)
    kill -QUIT "$server"
    tries=250
    while kill -0 "$server" && [ "$tries" -gt 0 ]; do
        sleep 0.02
        tries=$((tries - 1))
    done
    crash
    finish
    segment=$(sed -n '7s/.* //p' "$data/postmaster.pid") && [ -n "$segment" ] && ipcrm -m "$segment"
    rm -rf "$home"
} 2>/dev/null

# The kernel hangs up a process group with a stopped member when the group's last tie to its
# session dies. That is just what happens when our parent is killed, and we have work to do then.
trap '' HUP

exec 3<&0
"$@" </dev/null 3<&- &
server=$!

(
    while read -r order; do
        case $order in
        crash) crash ;;
        *) kill -s "$order" "$server" ;;
        esac
    done
    trap '' TERM
    end
) <&3 &
listener=$!
exec 3<&-

wait "$server"
status=$?
finish
kill -TERM "$listener" 2>/dev/null
wait "$listener"
exit "$status"
