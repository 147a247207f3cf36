//! The xenbus device, played by a socket that keeps messages whole.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use xsclient::*;

use crate::support::*;

/// A client on a device, whose kernel and server `kernel` plays in a thread.
fn client_of_device(
    kernel: impl FnOnce(File) + Send + 'static,
) -> (Client, std::thread::JoinHandle<()>) {
    let (family, ty) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, theirs) = socketpair(family, ty, SocketFlags::CLOEXEC, None).unwrap();
    let device = XenbusDevice::over(File::from(ours)).unwrap();
    let client = Client::over(Box::new(device), Options::with_timeout(LONG));
    (client, std::thread::spawn(move || kernel(File::from(theirs))))
}

/// The one message of a write.
fn one_message(device: &mut File) -> Asked {
    let mut buffer = [0; 5000];
    let read = device.read(&mut buffer).unwrap();
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    decoder.push(&buffer[..read]);
    let Ok(Decoded::Message(message)) = decoder.decode() else { panic!("no whole message") };
    assert_eq!(decoder.pending(), 0, "the kernel drops what follows the first message");
    let request = Request::decode(&message).unwrap();
    Asked { id: message.request_id, tx: message.tx_id, request }
}

#[test]
fn each_request_of_a_batch_is_a_write_of_its_own() {
    let (mut client, kernel) = client_of_device(|mut device| {
        let asked: Vec<Asked> = (0..100).map(|_| one_message(&mut device)).collect();
        for asked in asked {
            let Request::Read(path) = &asked.request else { panic!() };
            let value = path.as_str().as_bytes().to_vec();
            device.write_all(&reply_octets(&asked, &Reply::Value(value))).unwrap();
        }
    });
    let mut batch = Batch::new();
    let slots: Vec<_> = (0..100).map(|i| batch.read(path(&format!("/n/{i}")))).collect();
    let mut replies = client.run(batch).unwrap();
    assert_eq!(replies.take(slots[42]).unwrap(), b"/n/42");
    assert_eq!(client.statistics().round_trips, 1);
    kernel.join().unwrap();
}

#[test]
fn a_request_longer_than_the_kernels_buffer_is_refused_here() {
    let (mut client, _kernel) = client_of_device(|mut device| {
        let asked = one_message(&mut device);
        device.write_all(&reply_octets(&asked, &Reply::Ok)).unwrap();
    });
    // "/a", its NUL and the value make the payload.
    let error = client.write(&path("/a"), &[0; 4078]).unwrap_err();
    assert!(error.to_string().contains("longer than the 4080"), "{error}");
    client.write(&path("/a"), &[0; 4077]).unwrap();
}

#[test]
fn watches_work_and_what_is_sent_behind_them_waits_its_turn() {
    let (mut client, kernel) = client_of_device(|mut device| {
        let watch = one_message(&mut device);
        let Request::Watch { token, .. } = watch.request.clone() else { panic!() };
        let read = one_message(&mut device);
        device.write_all(&event_octets("/a", &token)).unwrap();
        device.write_all(&reply_octets(&watch, &Reply::Ok)).unwrap();
        device.write_all(&reply_octets(&read, &Reply::Value(b"1".to_vec()))).unwrap();
        let unwatch = one_message(&mut device);
        device.write_all(&reply_octets(&unwatch, &Reply::Ok)).unwrap();
    });
    let mut batch = Batch::new();
    let watch = batch.watch(path("/a"), None);
    let read = batch.read(path("/a"));
    let mut replies = client.run(batch).unwrap();
    assert_eq!(replies.take(read).unwrap(), b"1");
    let watch = replies.take_watch(watch).unwrap();
    assert!(client.next_event(&watch, LONG).unwrap().unwrap().first);
    client.unwatch(&watch).unwrap();
    kernel.join().unwrap();
}

#[test]
fn a_write_that_the_kernel_refuses_is_the_refusal_of_that_operation() {
    // A descriptor that can be polled and whose writes all fail, as that of a watch beyond the quota does.
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let device = XenbusDevice::over(File::from(epoll)).unwrap();
    let mut client = Client::over(Box::new(device), Options::with_timeout(LONG));
    let error = client.watch(path("/a"), None).unwrap_err();
    assert_eq!(error.to_string(), "WATCH of /a: refused with EINVAL");
    assert!(client.lost().is_none(), "the connection lives");
    let error = client.read(&path("/a")).unwrap_err();
    assert_eq!(error.to_string(), "READ of /a: refused with EINVAL");
}

#[test]
fn a_depth_does_not_reach_the_server_so_it_is_refused() {
    let (mut client, _kernel) = client_of_device(drop);
    let error = client.watch(path("/a"), Some(1)).unwrap_err();
    assert!(matches!(error.failure(), Failure::DepthNotCarried), "{error}");
}

#[test]
fn events_are_not_in_order_with_replies_so_a_fence_is_refused() {
    let (mut client, _kernel) = client_of_device(drop);
    assert_eq!(client.manner().event_order, EventOrder::Separate);
    let mut batch = Batch::new();
    batch.fence(path("/a"));
    let error = client.run(batch).unwrap_err();
    assert!(matches!(error.failure(), Failure::UnorderedEvents), "{error}");
    let error = client.fence([path("/a").into()]).unwrap_err();
    assert!(matches!(error.failure(), Failure::UnorderedEvents), "{error}");
}

#[test]
fn a_server_that_stalls_behind_the_kernel_is_a_timeout() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (mut client, kernel) = client_of_device(move |_device| {
        let _ = wait.recv();
    });
    let error = client.with_deadline(Instant::now() + SHORT).watch(path("/a"), None).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let error = client.with_deadline(Instant::now() + SHORT).read(&path("/a")).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(go);
    kernel.join().unwrap();
    assert!(client.read(&path("/a")).unwrap_err().is_lost());
}
