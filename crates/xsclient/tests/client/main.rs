//! The public behaviour of the client, against servers that are well and servers that are not.

mod operations;
mod support;
