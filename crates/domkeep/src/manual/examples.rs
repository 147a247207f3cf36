//! Examples of the pages. A test has each of them parsed.

/// What is typed, and what it does.
type Example = (&'static str, &'static str);

/// Examples of a command by its name without that of the program, with hyphens: `config-check`.
pub(super) fn of(command: &str) -> Vec<Example> {
    let of_command = EXAMPLES.iter().filter(|(name, _)| *name == command);
    of_command.flat_map(|(_, examples)| examples.iter().copied()).collect()
}

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("domkeep demo", "The main job, on a machine without Xen."),
            ("domkeep list", "Every domain of this host."),
            ("domkeep retrieve web --report", "One of them, and where every value came from."),
        ],
    ),
    (
        "retrieve",
        &[
            (
                "domkeep retrieve web",
                "The configuration of the domain web, as libxl would write it.",
            ),
            ("domkeep retrieve web --report", "Where every value and device came from, in words."),
            (
                "domkeep retrieve 7 --watch --json",
                "A document a line, whenever the configuration of domain 7 changes.",
            ),
        ],
    ),
    (
        "list",
        &[
            ("domkeep list", "A line a domain."),
            ("domkeep list -l", "What xl list -l prints, with errors instead of gaps."),
        ],
    ),
    (
        "config-check",
        &[
            ("domkeep config check web.json", "What is odd about a configuration file."),
            (
                "domkeep config check --stored /var/lib/xen/userdata-d.7.UUID.libxl-json",
                "The same of a file of libxl's own.",
            ),
        ],
    ),
    (
        "config-print",
        &[(
            "domkeep config print --layout json-c web.json",
            "A configuration as a libxl that was built with json-c writes it.",
        )],
    ),
    (
        "config-diff",
        &[("domkeep config diff before.json after.json", "What is different, by meaning.")],
    ),
    ("template-ls", &[("domkeep template ls", "Every template of this host.")]),
    ("template-show", &[("domkeep template show 7", "The template of domain 7 as it is stored.")]),
    (
        "template-import",
        &[(
            "domkeep --templates sled:/srv/templates template import web.json --domid 7",
            "A template in an embedded store, which is made if there is none.",
        )],
    ),
    (
        "device-attach",
        &[
            (
                "domkeep device attach web disk vdev=xvdb,format=raw,target=/srv/data.img",
                "A raw image as another disk of the domain web.",
            ),
            (
                "domkeep device attach web nic mac=00:16:3e:12:34:56,bridge=xenbr0",
                "Another network card, on a bridge.",
            ),
        ],
    ),
    (
        "device-detach",
        &[(
            "domkeep device detach web disk xvdb",
            "The disk is taken away once the guest lets it go.",
        )],
    ),
    (
        "device-list",
        &[(
            "domkeep device list web",
            "How far each device of web has come, and who is plugging it.",
        )],
    ),
    (
        "device-repair",
        &[
            ("domkeep device repair web", "Whatever is half plugged is finished."),
            ("domkeep device repair web disk xvdb --undo", "A half attached disk is detached."),
        ],
    ),
    (
        "xenstore-serve",
        &[(
            "domkeep xenstore serve --socket /tmp/xs --load nodes.txt --save nodes.txt",
            "An embedded Xenstore that starts with the nodes of a file and saves them at its end.",
        )],
    ),
    (
        "xenstore-ls",
        &[(
            "domkeep xenstore ls -fp /local/domain/7",
            "All nodes of domain 7, with permissions and full paths.",
        )],
    ),
    ("xenstore-read", &[("domkeep xenstore read /local/domain/7/name", "A value.")]),
    (
        "xenstore-write",
        &[("domkeep xenstore write /tool/a 1 /tool/b 2", "Two values in one transaction.")],
    ),
    ("xenstore-rm", &[("domkeep xenstore rm /tool/a", "A node and all below it is removed.")]),
    (
        "xenstore-watch",
        &[
            ("domkeep xenstore watch @releaseDomain", "A line whenever a domain has ended."),
            (
                "domkeep --timeout 60 xenstore watch -n 2 /local/domain/7/name",
                "Waits for a minute at most until the name of domain 7 changes: the first event comes at once.",
            ),
        ],
    ),
    (
        "stream-inspect",
        &[("domkeep stream inspect state_dump", "A daemon's dump, record by record.")],
    ),
    (
        "stream-verify",
        &[(
            "domkeep stream verify state_dump --for c-4.17",
            "What is wrong with it, and what C xenstored of Xen 4.17 would make of it.",
        )],
    ),
    (
        "stream-convert",
        &[(
            "domkeep stream convert dump.v2 dump.v1 --for c-4.17 --version 1",
            "The same state for C xenstored of Xen 4.17, and what is lost by it.",
        )],
    ),
    (
        "stream-encode",
        &[(
            "domkeep stream encode edited.json dump.v1",
            "A stream again of what `domkeep stream inspect --json` has printed, perhaps changed by hand.",
        )],
    ),
    (
        "stream-extract",
        &[("domkeep stream extract web web.xs", "What the domain web has in Xenstore.")],
    ),
    (
        "stream-apply",
        &[
            (
                "domkeep stream apply web.xs web-2 --dry-run",
                "What would be changed in the domain web-2.",
            ),
            (
                "domkeep stream apply web.xs web-2",
                "The nodes of a stream, in a domain that does not run yet.",
            ),
        ],
    ),
    (
        "simulate-serve",
        &[("domkeep simulate serve /tmp/sim", "A simulated host, whose socket is /tmp/sim/host.")],
    ),
    (
        "simulate-create",
        &[(
            "domkeep simulate create /tmp/sim/host --name web --disk xvda=root.qcow2:qcow2 --start",
            "A domain with one disk, which runs.",
        )],
    ),
    (
        "simulate-list",
        &[("domkeep simulate list /tmp/sim/host", "The domains of a simulated host.")],
    ),
    (
        "simulate-destroy",
        &[("domkeep simulate destroy /tmp/sim/host web", "One of them is destroyed.")],
    ),
    (
        "snapshot-plan",
        &[(
            "domkeep snapshot plan web --memory web.memory --disk xvda=overlay:web-1.qcow2",
            "What a save would do, or everything that speaks against it.",
        )],
    ),
    (
        "snapshot-save",
        &[
            (
                "domkeep snapshot save web --memory web.memory --disk xvda=overlay:web-1.qcow2 \\\n    --manifest web.snapshot --journal web.journal",
                "Memory, disk and configuration of one moment; the guest goes on, and writes to the overlay.",
            ),
            (
                "domkeep snapshot save web --no-memory --disk xvda=copy:web.img --manifest web.snapshot",
                "The disk alone, as a copy.",
            ),
        ],
    ),
    (
        "snapshot-verify",
        &[(
            "domkeep snapshot verify web.snapshot --depth full",
            "Every octet that there is a digest of, compared with what was saved.",
        )],
    ),
    (
        "snapshot-restore",
        &[(
            "domkeep snapshot restore web.snapshot --as-name web-2 --uuid new \\\n    --disk xvda=overlay:web-2.qcow2",
            "The saved guest beside the running one, on an overlay of its own.",
        )],
    ),
    (
        "snapshot-recover",
        &[(
            "domkeep snapshot recover web.journal --manifest web.snapshot",
            "A save whose process died is undone, or completed if its disks had been moved.",
        )],
    ),
    (
        "snapshot-inspect",
        &[("domkeep snapshot inspect web.memory", "What a file is, from its headers.")],
    ),
    (
        "snapshot-transcode",
        &[
            (
                "xl save web /dev/stdout | domkeep snapshot transcode - web.memory --to packed",
                "A domain that xl saves, compressed and with digests.",
            ),
            (
                "domkeep snapshot transcode web.memory - --to stream | xl restore /dev/stdin",
                "The same domain for xl, octet for octet.",
            ),
        ],
    ),
    ("demo", &[("domkeep demo", "The main job, on a host that is part of the program.")]),
    (
        "completions",
        &[(
            "domkeep completions bash > /etc/bash_completion.d/domkeep",
            "For every user's bash. The Debian package has them already.",
        )],
    ),
    (
        "man",
        &[
            (
                "domkeep man snapshot save | man -l -",
                "The page of a subcommand, where none is installed.",
            ),
            ("domkeep man --all /usr/local/share/man/man1", "All of them, to install."),
        ],
    ),
];
