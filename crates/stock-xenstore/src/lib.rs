//! Runs Debian's stock Xenstore daemons without a hypervisor, for tests and benches.
