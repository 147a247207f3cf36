//! Random requests.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use xenstore_proto::MessageType;

/// The clients: two of dom0 on sockets, then these guests on rings.
pub(crate) const GUESTS: [u16; 2] = [1, 2];
pub(crate) const DOM0_CLIENTS: usize = 2;
pub(crate) const CLIENTS: usize = DOM0_CLIENTS + GUESTS.len();

/// One request of one client.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) ty: MessageType,
    pub(crate) payload: Vec<u8>,
    pub(crate) place: Place,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Outside,
    /// In one of the client's open transactions, if it has any.
    Inside(usize),
    /// In a transaction that never was.
    Unknown,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = ["dom0 A", "dom0 B", "guest 1", "guest 2"][self.client];
        write!(f, "{who}: {:?} \"{}\" {:?}", self.ty, shown(&self.payload), self.place)
    }
}

/// Octets for people, the middle of long ones left out.
pub(crate) fn shown(octets: &[u8]) -> String {
    const ENDS: usize = 60;
    match octets.len() {
        len if len <= 3 * ENDS => octets.escape_ascii().to_string(),
        len => {
            let (start, end) = (&octets[..ENDS], &octets[len - ENDS..]);
            format!("{}...{} octets...{}", start.escape_ascii(), len - 2 * ENDS, end.escape_ascii())
        }
    }
}

pub(crate) fn any_sequence() -> impl Strategy<Value = Vec<Step>> {
    let anything = proptest::collection::vec(any_step(), 1..60);
    let contention = proptest::collection::vec(contending_step(), 1..60);
    prop_oneof![2 => anything, 1 => contention]
}

/// Transactions on few nodes: most of them overtake each other.
fn contending_step() -> impl Strategy<Value = Step> {
    let nodes = ["/t", "/t/a", "/t/a/b", "/t/b", "/t/open", "/t/open/a"];
    let path = move || select(nodes.to_vec());
    let one = move |ty: MessageType| path().prop_map(move |path| strings(ty, &[path]));
    let request = prop_oneof![
        3 => one(MessageType::READ),
        2 => one(MessageType::DIRECTORY),
        1 => one(MessageType::GET_PERMS),
        3 => one(MessageType::MKDIR),
        2 => one(MessageType::RM),
        4 => (path(), "[ab]?").prop_map(|(path, value)| {
            (MessageType::WRITE, format!("{path}\0{value}").into_bytes())
        }),
        1 => (path(), "[rb][0-2](\0[rwb][0-2])?")
            .prop_map(|(path, perms)| strings(MessageType::SET_PERMS, &[path, &perms])),
        1 => path().prop_map(|path| strings(MessageType::WATCH, &[path, &format!("x:{path}")])),
        3 => Just((MessageType::TRANSACTION_START, b"\0".to_vec())),
        3 => Just((MessageType::TRANSACTION_END, b"T\0".to_vec())),
    ];
    (0..CLIENTS, request, 0..5_usize).prop_map(|(client, (ty, payload), n)| {
        let starts = ty == MessageType::TRANSACTION_START;
        let place = if n == 4 || starts { Place::Outside } else { Place::Inside(n) };
        Step { client, ty, payload, place }
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = prop_oneof![3 => 0..DOM0_CLIENTS, 4 => DOM0_CLIENTS..CLIENTS];
    let place = prop_oneof![
        10 => Just(Place::Outside),
        14 => (0..3_usize).prop_map(Place::Inside),
        1 => Just(Place::Unknown),
    ];
    (client, any_request(), place, damage()).prop_map(
        |(client, (ty, mut payload), place, damage)| {
            damage.apply(&mut payload);
            let place = match (ty, place) {
                // Outside transactions there is nothing to end.
                (MessageType::TRANSACTION_END, Place::Outside) => Place::Inside(0),
                _ => place,
            };
            Step { client, ty, payload, place }
        },
    )
}

/// What may be wrong with a payload as a whole.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    /// The last octet is missing.
    Cut,
    /// There is one more.
    Longer(u8),
    Empty,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        60 => Just(Damage::None),
        1 => Just(Damage::Cut),
        1 => select(vec![0, b'1', b'/', b'T']).prop_map(Damage::Longer),
        1 => Just(Damage::Empty),
    ]
}

impl Damage {
    fn apply(self, payload: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Cut => drop(payload.pop()),
            Self::Longer(octet) => payload.push(octet),
            Self::Empty => payload.clear(),
        }
    }
}

type Request = (MessageType, Vec<u8>);

fn any_request() -> impl Strategy<Value = Request> {
    let one = |ty: MessageType| path().prop_map(move |path| strings(ty, &[&path]));
    let domain = |ty: MessageType| number().prop_map(move |domid| strings(ty, &[&domid]));
    let constant = |ty: MessageType, payload: &'static str| Just((ty, payload.as_bytes().to_vec()));
    let all: Vec<(u32, BoxedStrategy<Request>)> = vec![
        (8, one(MessageType::READ).boxed()),
        (6, one(MessageType::DIRECTORY).boxed()),
        (
            4,
            (path(), offset())
                .prop_map(|(path, at)| strings(MessageType::DIRECTORY_PART, &[&path, &at]))
                .boxed(),
        ),
        (4, path_or_special().prop_map(|path| strings(MessageType::GET_PERMS, &[&path])).boxed()),
        (5, one(MessageType::MKDIR).boxed()),
        (7, one(MessageType::RM).boxed()),
        (
            14,
            (path(), value())
                .prop_map(|(path, value)| {
                    (MessageType::WRITE, [path.as_bytes(), b"\0", &value].concat())
                })
                .boxed(),
        ),
        (2, long_child().prop_map(|path| strings(MessageType::MKDIR, &[&path])).boxed()),
        (
            7,
            (path_or_special(), perms())
                .prop_map(|(path, perms)| strings(MessageType::SET_PERMS, &[&path, &perms]))
                .boxed(),
        ),
        (
            10,
            watch().prop_map(|(path, token)| strings(MessageType::WATCH, &[&path, &token])).boxed(),
        ),
        (
            3,
            watch()
                .prop_map(|(path, token)| strings(MessageType::UNWATCH, &[&path, &token]))
                .boxed(),
        ),
        (1, constant(MessageType::RESET_WATCHES, "\0").boxed()),
        (9, constant(MessageType::TRANSACTION_START, "\0").boxed()),
        (
            10,
            select(vec!["T\0", "T\0", "T\0", "T\0", "T\0", "F\0", "X\0", "TT\0"])
                .prop_map(|end| (MessageType::TRANSACTION_END, end.into()))
                .boxed(),
        ),
        (
            1,
            number().prop_map(|domid| strings(MessageType::INTRODUCE, &[&domid, "1", "5"])).boxed(),
        ),
        (
            1,
            select(vec![
                "1\x001\x00101\0",
                "2\x001\x00102\0",
                "5\x001\x000\0",
                "5\x001\0x\0",
                "5\x001\0",
            ])
            .prop_map(|payload| (MessageType::INTRODUCE, payload.into()))
            .boxed(),
        ),
        (1, domain(MessageType::RELEASE).boxed()),
        (1, domain(MessageType::RESUME).boxed()),
        (1, domain(MessageType::IS_DOMAIN_INTRODUCED).boxed()),
        (2, domain(MessageType::GET_DOMAIN_PATH).boxed()),
        (
            1,
            (number(), number())
                .prop_map(|(domid, target)| strings(MessageType::SET_TARGET, &[&domid, &target]))
                .boxed(),
        ),
        (
            1,
            select(vec!["1\x002\0", "2\x001\0"])
                .prop_map(|payload| (MessageType::SET_TARGET, payload.into()))
                .boxed(),
        ),
        (
            1,
            select(vec![
                "check\0",
                "nonsense\0",
                "print\0x\0",
                "print\0",
                "log\0on\0",
                "log\0off\0",
                "",
            ])
            .prop_map(|words| (MessageType::CONTROL, words.into()))
            .boxed(),
        ),
        (
            1,
            (select(vec![15, 16, 20, 27, 28, 1000]), "[/t\0]{0,4}")
                .prop_map(|(ty, payload)| (MessageType(ty), payload.into_bytes()))
                .boxed(),
        ),
    ];
    Union::new_weighted(all)
}

fn strings(ty: MessageType, strings: &[&str]) -> Request {
    (ty, strings.iter().flat_map(|string| [string.as_bytes(), b"\0"]).flatten().copied().collect())
}

fn path() -> BoxedStrategy<String> {
    let odd = vec![
        "/".to_owned(),
        "/t/".into(),
        "/t//a".into(),
        "/t/a.b".into(),
        String::new(),
        "@foo".into(),
        "/t/@a".into(),
        "/tool".into(),
        "/t/big".into(),
        "/t/big".into(),
        format!("/t/{}", "x".repeat(2045)),
        format!("/t/{}", "x".repeat(3070)),
    ];
    prop_oneof![
        40 => "/t(/[ab]){0,3}",
        10 => select(vec!["/t/a".to_owned(), "/t/a/b".into(), "/t/b".into()]),
        8 => "/t/(open|closed|shown)(/[ab]){0,2}",
        6 => "/local/domain/[0-2](/[ab]){0,2}",
        8 => "[abc](/[abc]){0,2}",
        3 => select(odd),
    ]
    .boxed()
}

fn path_or_special() -> BoxedStrategy<String> {
    prop_oneof![12 => path(), 1 => special()].boxed()
}

fn special() -> BoxedStrategy<String> {
    let names = ["@introduceDomain", "@releaseDomain", "@bar", "@foo", "@"];
    select(names.map(str::to_owned).to_vec()).boxed()
}

/// A child of a directory of which few make a listing longer than a message.
fn long_child() -> BoxedStrategy<String> {
    "[a-h]".prop_map(|last| format!("/t/big/{}{last}", "n".repeat(900))).boxed()
}

/// The token names its watch, so that an event tells which one it is of.
fn watch() -> BoxedStrategy<(String, String)> {
    let wide = select(vec!["/", "/t", "/t", "/t/a"]).prop_map(str::to_owned);
    let path = prop_oneof![10 => path(), 2 => special(), 6 => wide];
    (path, "[xy]")
        .prop_map(|(path, letter)| {
            // Two long ones differ in length.
            let token = format!("{letter}:{}:{}", path.len(), &path[..path.len().min(30)]);
            (path, token)
        })
        .boxed()
}

fn value() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        10 => "[a-c]{0,2}".prop_map(String::into_bytes),
        1 => Just(b"nul\0inside\0".to_vec()),
        1 => Just(vec![0xff; 300]),
    ]
    .boxed()
}

fn perms() -> BoxedStrategy<String> {
    let odd = vec!["", "x1", "r", "r-1", "r99999", "r1x", "1", "n0\0", "n32752", "b0\0r32752"];
    prop_oneof![
        20 => "[nrwb][0-3](\0[nrwb][0-3]){0,2}",
        5 => "[rb]0(\0[nrwb][0-3]){0,2}",
        1 => select(odd).prop_map(str::to_owned),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<String> {
    let odd = [
        "0", "3", "65535", "65536", "32752", "32756", "-1", "x", "", "5x", " 5", "0x5", "+5", "05",
    ];
    prop_oneof![4 => Just("5".to_owned()), 3 => Just("6".into()), 2 => select(odd.map(str::to_owned).to_vec())].boxed()
}

fn offset() -> BoxedStrategy<String> {
    let odd =
        vec!["1", "2", "901", "902", "3604", "4000", "100000", "4294967295", "x", "-1", "", "1x"];
    prop_oneof![3 => Just("0".to_owned()), 2 => select(odd).prop_map(str::to_owned)].boxed()
}
