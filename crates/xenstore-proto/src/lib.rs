//! The Xenstore protocol: vocabulary, messages, decoder and the transport trait; no I/O.
