//! An embedded Xenstore: a policy and quotas of the program's own, clients in the same process, and everybody else on a socket.
//!
//! `embedded_xenstored [DIRECTORY]` serves on DIRECTORY/socket until its input ends. What it has then is kept in DIRECTORY/state,
//! as a xenstore-migration stream, and the next start goes on from it.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path as FilePath;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;
use xenstore_migration::{
    ByteOrder, NodeData, NodePerm, NodeScope, Peer, Preamble, Record, StreamWriter, Version,
};
use xenstored::{
    AccessPolicy, Embedded, Inheritance, Object, Quota, Quotas, Server, Standard, Store, Subject,
};
use xsclient::{
    Access, Client, DomId, Endpoint, Nodes, Options, Path, Reply, Request, on_one_line,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const GUEST: DomId = DomId::new(7);
const NEIGHBOUR: DomId = DomId::new(8);

/// How long an event may take; one inside the process takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let outcome = match env::args_os().skip(1).collect::<Vec<_>>().as_slice() {
        [] => tempfile::tempdir().map_err(Into::into).and_then(|scratch| run(scratch.path())),
        [directory] => run(FilePath::new(directory)),
        _ => Err("usage: embedded_xenstored [DIRECTORY]".into()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("embedded_xenstored: {}", on_one_line(error.as_ref()));
    ExitCode::FAILURE
}

fn run(directory: &FilePath) -> Outcome {
    let state = directory.join("state");
    let xenstore = load(&state)
        .map_err(|error| format!("{}: {}", state.display(), on_one_line(error.as_ref())))?;
    println!("started with {} nodes", xenstore.snapshot().nodes().count());

    compartments_and_a_watch(&xenstore)?;
    a_quota(&xenstore)?;
    transactions_inside_transactions(&xenstore)?;

    // Privileged clients of this user only, as with the stock daemon. The server has a thread of its own, until this is dropped.
    let socket = directory.join("socket");
    let served = xenstore.serve_unix(&socket)?;
    let mut tool = Client::open(Endpoint::UnixSocket(socket), Options::default())?;
    println!("a client on the socket reads {:?}", tool.read_text(&"/tool/version".parse()?)?);
    println!("serving until the input ends");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    served.stop();

    save(&xenstore.snapshot(), &state)?;
    println!("saved {} nodes", xenstore.snapshot().nodes().count());
    Ok(())
}

/// The standard model lets a guest open its nodes to any other. Here guests see nothing of each other, whatever they permit.
#[derive(Debug)]
struct Compartments;

impl AccessPolicy for Compartments {
    fn access(&self, subject: &Subject, object: Object<'_>) -> Access {
        let owner = object.perms.owner();
        let known = [Some(DomId::DOM0), Some(subject.domid), subject.target].contains(&Some(owner));
        // A policy goes on top of another: what that denies stays denied.
        if subject.privileged || known { Standard.access(subject, object) } else { Access::None }
    }

    fn owns(&self, subject: &Subject, object: Object<'_>) -> bool {
        Standard.owns(subject, object)
    }
}

/// A server without a store yet. Policy and quotas are the program's, and not part of what is saved.
fn server() -> Server {
    let mut quotas = Quotas::default();
    quotas.set(Quota::Nodes, 8);
    Server::new(Store::new()).with_policy(Arc::new(Compartments)).with_quotas(&quotas)
}

/// Goes on from a state, or starts empty if there is none.
fn load(state: &FilePath) -> Outcome<Embedded> {
    let file = match File::open(state) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(server().into()),
        Err(error) => return Err(error.into()),
    };
    // Clients of the last time know some numbers of its changes: these go on beyond any of them.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let (server, inheritance) = Inheritance::take(file, server(), u64::try_from(now.as_nanos())?)?;
    // What a predecessor's clients were connected by. This one had none that outlive it.
    drop(inheritance);
    Ok(server.into())
}

/// Writes a store as a stream that any Xenstore server takes which can do a live update.
fn save(store: &Store, state: &FilePath) -> Outcome {
    let preamble = Preamble::new(Version::V2, ByteOrder::NATIVE);
    let mut stream = StreamWriter::create(Vec::new(), preamble, Peer::Specification)?;
    for node in store.nodes() {
        let entries = node.perms.entries().iter();
        let perms: Vec<_> = entries.map(|perm| NodePerm::new(perm.access, perm.domid)).collect();
        stream.write(&Record::Node(NodeData {
            scope: NodeScope::Committed,
            perms: &perms,
            path: node.path.as_str().as_bytes(),
            value: node.value,
        }))?;
    }
    // Complete or not there: a process that is killed here leaves the old state.
    let directory = state.parent().ok_or("a state needs a directory")?;
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(&stream.finish()?)?;
    file.as_file().sync_all()?;
    file.persist(state)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// A client in this process: the same as on a socket, without one. Every call has a deadline.
fn client(xenstore: &Embedded, domid: DomId) -> Client {
    Client::over(Box::new(xenstore.transport(domid)), Options::with_timeout(PATIENCE))
}

fn compartments_and_a_watch(xenstore: &Embedded) -> Outcome {
    let mut toolstack = client(xenstore, DomId::DOM0);
    toolstack.write(&"/tool/version".parse()?, b"1")?;
    for domid in [GUEST, NEIGHBOUR] {
        let home = Path::of_domain(domid);
        toolstack.write(&home, b"")?;
        toolstack.set_perms(&home.into(), &format!("n{domid}").parse()?)?;
    }

    let data: Path = "/local/domain/7/data".parse()?;
    let watch = toolstack.watch(data.clone(), None)?;
    let mut guest = client(xenstore, GUEST);
    // Relative to the guest's own tree, as a guest has it.
    guest.write(&"data".parse()?, b"seen by the toolstack")?;
    for event in toolstack.events(&watch, PATIENCE) {
        let event = event?;
        // The first event comes at once and says that the watch is set.
        if !event.first {
            println!("watch: {} changed", event.path);
            break;
        }
    }
    toolstack.unwatch(&watch)?;
    println!("the toolstack reads {:?}", toolstack.read_text(&data)?);

    guest.set_perms(&data.clone().into(), &"r7".parse()?)?;
    match client(xenstore, NEIGHBOUR).read(&data) {
        Err(error) => println!("domain 8 is refused what domain 7 has opened to all: {error}"),
        Ok(_) => return Err("domain 8 sees domain 7's data".into()),
    }
    Ok(())
}

fn a_quota(xenstore: &Embedded) -> Outcome {
    let mut guest = client(xenstore, NEIGHBOUR);
    for number in 0.. {
        if let Err(error) = guest.write(&format!("data/{number}").parse()?, b"") {
            println!("domain 8 has what it may have: {error}");
            break;
        }
    }
    let usage = xenstore.with(|server| server.usage_of(NEIGHBOUR));
    println!("domain 8 has {} nodes", usage.nodes);
    guest.rm(&"data".parse()?)?;
    Ok(())
}

/// A step of a larger change is tried, given up, and made otherwise; then all of it becomes real at once.
fn transactions_inside_transactions(xenstore: &Embedded) -> Outcome {
    let place: Path = "/tool/device".parse()?;
    let put = |key: &str| -> Outcome<Request> {
        Ok(Request::Write { path: place.join(key)?, value: b"1".to_vec() })
    };
    let done = |reply: Reply| if reply == Reply::Ok { Ok(()) } else { Err(format!("{reply:?}")) };

    // What the last start has left of it. The program itself needs no client, and watchers hear of it all the same.
    xenstore.apply(Request::Rm(place.clone()));
    let outer = xenstore.transaction(DomId::DOM0)?;
    done(outer.ask(put("frontend")?))?;
    let first_try = outer.nested()?;
    done(first_try.ask(put("backend-in-domain-9")?))?;
    first_try.abort();
    let second_try = outer.nested()?;
    done(second_try.ask(put("backend")?))?;
    second_try.commit()?;
    // A snapshot costs nothing and needs no lock: nobody sees the change yet.
    println!("before the commit: {:?}", xenstore.snapshot().children(&place).unwrap_or_default());
    outer.commit()?;
    println!("after the commit: {:?}", xenstore.snapshot().children(&place).unwrap_or_default());
    Ok(())
}
