//! Xenstore client: pipelined, typed, with deadlines, on any transport.
