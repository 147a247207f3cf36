//! A whole session: a simulated host, a domain, and what is done to it.
