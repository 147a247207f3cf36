//! Serves a store from its text form on a Unix socket, until its standard input ends; then prints the store as it has become.
//!
//! `cargo run -p xenstored --example serve_text -- STORE.txt /tmp/xenstored.socket`, and in another shell
//! `XENSTORED_PATH=/tmp/xenstored.socket xenstore-ls -fp`

use std::error::Error;
use std::io::Read as _;

use xenstored::{Embedded, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(text), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve_text STORE.txt SOCKET".into());
    };
    let store = Store::from_text(std::fs::read(text)?)?;
    let xenstore = Embedded::new(store);
    let server = xenstore.serve_unix(socket)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.stop();
    print!("{}", xenstore.snapshot().to_text());
    Ok(())
}
