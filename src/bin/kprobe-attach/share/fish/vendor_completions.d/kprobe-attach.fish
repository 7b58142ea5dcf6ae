# Completion of kprobe-attach for fish.

complete -c kprobe-attach -f
complete -c kprobe-attach -n __fish_use_subcommand -a features -d 'Show what this kernel allows, and why not'
complete -c kprobe-attach -n __fish_use_subcommand -a plan -d 'Show the system calls of an attach, and make none'
complete -c kprobe-attach -n __fish_use_subcommand -a attach -d 'Attach a program: a loaded one, or those of an object'
complete -c kprobe-attach -n __fish_use_subcommand -a count -d 'Count hits and misses of each probe, system-wide'
complete -c kprobe-attach -n __fish_use_subcommand -a explain -d 'Show whether a probe would attach, and why not'
complete -c kprobe-attach -n __fish_use_subcommand -a functions -d 'List what can be probed, and why not for what cannot'
complete -c kprobe-attach -n __fish_use_subcommand -a sweep -d 'Remove the trace events that killed processes left'
complete -c kprobe-attach -n __fish_use_subcommand -a maps -d 'Print the keys and values of a map'
complete -c kprobe-attach -n __fish_use_subcommand -a help -d 'Print help'
complete -c kprobe-attach -l help -s h -d 'Print help'
complete -c kprobe-attach -n __fish_use_subcommand -l version -s V -d 'Print the version'
complete -c kprobe-attach -n '__fish_seen_subcommand_from features' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l mode -x -a 'link perf legacy-link legacy' \
    -d 'link, perf, legacy-link or legacy; else the first to fit'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l cookie -x \
    -d 'for bpf_get_attach_cookie(), in the link modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l maxactive -x \
    -d 'returns awaited at once, 1 to 4096, in the legacy modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l program -r -F \
    -d 'the path of a pin, id:N or fd:N; or a program of FILE'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l object -r -F \
    -d 'load an object; its sections say where, unless PROBEs do'
complete -c kprobe-attach -n '__fish_seen_subcommand_from plan' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l mode -x -a 'link perf legacy-link legacy' \
    -d 'link, perf, legacy-link or legacy; else the first to fit'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l cookie -x \
    -d 'for bpf_get_attach_cookie(), in the link modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l maxactive -x \
    -d 'returns awaited at once, 1 to 4096, in the legacy modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l program -r -F \
    -d 'the path of a pin, id:N or fd:N; or a program of FILE'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l object -r -F \
    -d 'load an object; its sections say where, unless PROBEs do'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l verifier-log \
    -d 'print all of the log if the kernel refuses a program'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l pin -x -a '(__fish_complete_directories)' \
    -d 'pin in DIR and end; count without a PROBE reads the pins'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l for -x \
    -d 'detach after this time'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l keep-going \
    -d 'attach the other probes if some cannot be attached'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l any-of \
    -d 'attach the first probe that can be attached, and no other'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from attach' -l quiet \
    -d 'print no messages but errors'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l mode -x -a 'link perf legacy-link legacy' \
    -d 'link, perf, legacy-link or legacy; else the first to fit'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l cookie -x \
    -d 'for bpf_get_attach_cookie(), in the link modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l maxactive -x \
    -d 'returns awaited at once, 1 to 4096, in the legacy modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l pid -r -F \
    -d 'count this process alone'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l command-only \
    -d 'count COMMAND alone, not its children'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l children \
    -d 'also count the processes that PID or COMMAND starts'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l pin -x -a '(__fish_complete_directories)' \
    -d 'pin in DIR and end; count without a PROBE reads the pins'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l for -x \
    -d 'detach after this time'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l interval -x \
    -d 'print the counts this often'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l keep-going \
    -d 'attach the other probes if some cannot be attached'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l any-of \
    -d 'attach the first probe that can be attached, and no other'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from count' -l quiet \
    -d 'print no messages but errors'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l mode -x -a 'link perf legacy-link legacy' \
    -d 'link, perf, legacy-link or legacy; else the first to fit'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l cookie -x \
    -d 'for bpf_get_attach_cookie(), in the link modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l maxactive -x \
    -d 'returns awaited at once, 1 to 4096, in the legacy modes'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l program -r -F \
    -d 'the path of a pin, id:N or fd:N; or a program of FILE'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l object -r -F \
    -d 'load an object; its sections say where, unless PROBEs do'
complete -c kprobe-attach -n '__fish_seen_subcommand_from explain' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from functions' -l all \
    -d 'also list what cannot be probed, and why; with addresses'
complete -c kprobe-attach -n '__fish_seen_subcommand_from functions' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from functions' -l quiet \
    -d 'print no messages but errors'
complete -c kprobe-attach -n '__fish_seen_subcommand_from sweep' -l json \
    -d 'print one JSON object a line'
complete -c kprobe-attach -n '__fish_seen_subcommand_from sweep' -l quiet \
    -d 'print no messages but errors'
complete -c kprobe-attach -n '__fish_seen_subcommand_from sweep' -l dry-run \
    -d 'remove nothing'
complete -c kprobe-attach -n '__fish_seen_subcommand_from maps' -l json \
    -d 'print one JSON object a line'
