# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2154,SC2317
#
# For run.sh: what guests ask for on their consoles, see tests/guest/clients. A
# line "@@host WORD ARGUMENT..." is answered with what host_WORD leaves in $said;
# not at all if $said is "nothing", as the guest is no longer there to hear it.

# attend: between the console and follow; the console's input is $keys.
attend() {
	local line words
	while IFS= read -r line; do
		printf '%s\n' "$line"
		line=${line%$'\r'}
		case $line in
		*@@host\ *)
			read -ra words <<<"${line##*@@host }"
			said=
			if "host_${words[0]}" "${words[@]:1}" >"$tmp/asked" 2>&1
			then said="ok=1 $said"
			else
				said="ok=0 $said"
				sed 's/^/@@ | /' "$tmp/asked"
			fi
			sed "s/^/host: ${words[0]}: /" "$tmp/asked" \
				>>"$out/$group.host"
			[ "${said#* }" = nothing ] ||
				printf '%s\n' "$said" >&"$keys"
			;;
		esac
	done
}

host_boot() {
	boots=$((${boots-0} + 1))
	said=boots=$boots
}

host_syncs() { said=syncs=$(word 8); }

# It hangs until it is let go, so whatever is done between is done while it does.
hang() {
	hold 7 && eventually hangs
}

# bounded WHAT COMMAND...: it takes the budget at most, of each queue.
bounded() {
	in_ms "${@:2}" && within $((4 * budget_ms + late_ms)) "$1" && still_hangs
}

# stop_cont ROUND: the machine is stopped over a hang, and goes on while it
# lasts, or behind it.
host_stop_cont() {
	hang && bounded stop qmp m stop || return
	case $(($1 % 2)) in
	0) sleep 2; bounded cont qmp m cont && hold 0 ;;
	1) sleep 5; still_hangs && hold 0 && qmp m cont ;;
	esac
}

# What is on a disk that the guest wrote as an image.
host_same() { same_image "$1"; }

# The firmware that comes next may read the disk before anybody else: it waits
# until the storage is let go, which is so once the reset is over.
host_reset() {
	said=nothing
	hang && bounded reset reset
	echo $? >"$tmp/reset.rc"
	cp "$tmp/asked" "$tmp/reset.said"
	hold 0
}
# A reset is told of when it has begun; another question waits until it is over.
reset() {
	qmp m system_reset && event m RESET && qmp m query-status
}

host_quit() {
	said=nothing
	hang && bounded quit quit
	echo $? >"$tmp/quit.rc"
	cp "$tmp/asked" "$tmp/quit.said"
}
quit() {
	local pid
	pid=$(pid_of m)
	qmp m quit || [ ! "$answer" ] || return
	eventually gone "$pid"
}

# went WHAT: as it was asked for by a guest that did not wait for the answer.
went() {
	cat "$tmp/$1.said"
	[ "$(cat "$tmp/$1.rc")" = 0 ]
}

# The image is locked for as long as anything of the old one may still write.
host_kill() {
	kill_server "$1" "$2" && serve "$1" --wait
}

host_plug() {
	qmp m chardev-add "\"id\":\"$1\",\"backend\":{\"type\":\"socket\",
		\"data\":{\"server\":false,\"reconnect\":1,\"addr\":{\"type\":\"unix\",
		\"data\":{\"path\":\"$tmp/$1.sock\"}}}}" || return
	qmp m device_add "\"driver\":\"vhost-user-blk-pci\",\"id\":\"disk-$1\",
		\"chardev\":\"$1\",\"bus\":\"root1\",\"num-queues\":2"
}

host_unplug() {
	qmp m device_del "\"id\":\"disk-$1\"" && event m DEVICE_DELETED &&
		eventually qmp m chardev-remove "\"id\":\"$1\""
}

host_memory() {
	qmp m object-add "\"qom-type\":\"memory-backend-memfd\",\"id\":\"more\",
		\"size\":$(($1 << 20)),\"share\":true" &&
		qmp m device_add '"driver":"pc-dimm","id":"dimm","memdev":"more"'
}

# To the second machine, which has a server of its own.
host_migrate() {
	qmp m migrate-set-parameters '"max-bandwidth":1073741824,"downtime-limit":2000' &&
	qmp m migrate "\"uri\":\"unix:$tmp/migrate\"" &&
		eventually migrated &&
		qmp m quit && eventually gone "$(pid_of m)" &&
		eventually runs && exec {keys}<>"$tmp/to-con.in"
}
migrated() {
	qmp m query-migrate && [[ $answer == *'"status": "completed"'* ]]
}
runs() {
	qmp to query-status && [[ $answer == *'"status": "running"'* ]]
}
