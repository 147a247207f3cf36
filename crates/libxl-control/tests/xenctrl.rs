//! What is made of libxenctrl's answers, against a stand-in that gives the same ones without Xen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "fake/xenctrl.rs"]
mod fake;

use std::thread;

use libxl_config::model::SchedParams;
use libxl_config::retrieve::{HypervisorDomain, HypervisorView};
use libxl_config::{Mode, json};
use libxl_control::{LoadError, Xenctrl};
use uuid::{Uuid, uuid};
use xsclient::DomId;

use fake::Hypervisor;

const CREDIT: u32 = 5;
const CREDIT2: u32 = 6;
const ARINC653: u32 = 7;
const RTDS: u32 = 8;
const NULL: u32 = 9;

const UUID: Uuid = uuid!("b8f105fc-3f47-4301-8f2d-d8e8cd5ebedd");

fn ask(xenctrl: &Xenctrl, domid: u16) -> Option<HypervisorDomain> {
    xenctrl.domain(DomId::new(domid)).unwrap()
}

/// As it is in a configuration that libxl writes.
fn params(text: &str) -> SchedParams {
    let parsed = json::parse(text.as_bytes(), Mode::Lenient).unwrap();
    let (mut params, _) = SchedParams::from_value(&parsed.value).unwrap();
    params.forget_source();
    params
}

#[test]
fn a_domain_is_told_by_its_number_and_by_no_other() {
    let Some(hypervisor) = Hypervisor::start("a_domain_is_told_by_its_number_and_by_no_other")
    else {
        return;
    };
    hypervisor.pool(0, CREDIT2);
    hypervisor.domain(0, Uuid::nil(), 0, (256, 0));
    hypervisor.domain(7, UUID, 0, (300, 50));
    let xenctrl = hypervisor.open().unwrap();
    let seven = ask(&xenctrl, 7).unwrap();
    assert_eq!(seven.uuid, UUID);
    assert_eq!(seven.sched_params, params("{\"sched\":\"credit2\",\"weight\":300,\"cap\":50}"));
    assert_eq!(ask(&xenctrl, 6), None, "the hypervisor answers with the next one");
    assert_eq!(ask(&xenctrl, 8), None);
    assert_eq!(ask(&xenctrl, 0).unwrap().uuid, Uuid::nil());
    assert_eq!(hypervisor.left(), 1, "one interface, and no structure");
    drop(xenctrl);
    assert_eq!(hypervisor.left(), 0);
}

#[test]
fn parameters_are_those_of_the_scheduler_of_the_domains_pool() {
    let Some(hypervisor) =
        Hypervisor::start("parameters_are_those_of_the_scheduler_of_the_domains_pool")
    else {
        return;
    };
    let expected = [
        (CREDIT, (512, 20), "{\"sched\":\"credit\",\"weight\":512,\"cap\":20}"),
        (CREDIT2, (65535, 0), "{\"sched\":\"credit2\",\"weight\":65535,\"cap\":0}"),
        (ARINC653, (1, 1), "{\"sched\":\"arinc653\"}"),
        (RTDS, (10000, 4000), "{\"sched\":\"rtds\",\"period\":10000,\"budget\":4000}"),
        (NULL, (1, 1), "{\"sched\":\"null\"}"),
    ];
    for (number, (sched, told, _)) in (1_u16..).zip(expected) {
        let pool = u32::from(number) * 10;
        hypervisor.pool(pool, sched);
        hypervisor.domain(number, UUID, pool, told);
    }
    let xenctrl = hypervisor.open().unwrap();
    for (number, (_, _, text)) in (1_u16..).zip(expected) {
        let told = ask(&xenctrl, number).unwrap().sched_params;
        assert_eq!(told, params(text));
        // What is not known must not be written either.
        assert_eq!(told.to_value(), params(text).to_value());
    }
}

#[test]
fn a_scheduler_or_pool_that_is_not_known_is_an_error_with_its_number() {
    let Some(hypervisor) =
        Hypervisor::start("a_scheduler_or_pool_that_is_not_known_is_an_error_with_its_number")
    else {
        return;
    };
    hypervisor.pool(3, 10);
    hypervisor.domain(1, UUID, 3, (0, 0));
    hypervisor.domain(2, UUID, 2, (0, 0));
    hypervisor.domain(3, UUID, u32::MAX, (0, 0));
    let xenctrl = hypervisor.open().unwrap();
    let fails = |domid| xenctrl.domain(DomId::new(domid)).unwrap_err().to_string();
    assert_eq!(fails(1), "domain 1 is under a scheduler that is not known, number 10");
    assert_eq!(fails(2), "domain 2 is in CPU pool 2, which there is not");
    assert!(fails(3).starts_with("xc_cpupool_getinfo for domain 3: No such file"), "{}", fails(3));
}

#[test]
fn a_domain_that_goes_while_it_is_asked_for_is_none() {
    let Some(hypervisor) = Hypervisor::start("a_domain_that_goes_while_it_is_asked_for_is_none")
    else {
        return;
    };
    hypervisor.pool(0, CREDIT);
    hypervisor.domain(1, UUID, 0, (256, 0));
    let xenctrl = hypervisor.open().unwrap();
    hypervisor.fault("gone meanwhile");
    assert_eq!(ask(&xenctrl, 1), None);
    assert!(ask(&xenctrl, 1).is_some());
}

#[test]
fn a_refused_question_is_told_with_function_domain_errno_and_log() {
    let Some(hypervisor) =
        Hypervisor::start("a_refused_question_is_told_with_function_domain_errno_and_log")
    else {
        return;
    };
    hypervisor.pool(0, CREDIT);
    hypervisor.domain(4, UUID, 0, (256, 0));
    let xenctrl = hypervisor.open().unwrap();
    let fails = || xenctrl.domain(DomId::new(4)).unwrap_err().to_string();
    hypervisor.fault("list fails");
    assert_eq!(
        fails(),
        "xc_domain_getinfolist for domain 4: Permission denied (os error 13) (xc: error: is the tool set that of this hypervisor?)"
    );
    hypervisor.fault("parameters fail");
    assert_eq!(
        fails(),
        "xc_sched_credit_domain_get for domain 4: Operation not permitted (os error 1)"
    );
    assert!(ask(&xenctrl, 4).is_some(), "the next question is answered");
}

#[test]
fn a_hypervisor_that_cannot_be_reached_is_told_and_nothing_is_left() {
    let Some(hypervisor) =
        Hypervisor::start("a_hypervisor_that_cannot_be_reached_is_told_and_nothing_is_left")
    else {
        return;
    };
    hypervisor.fault("no interface");
    let error = hypervisor.open().unwrap_err();
    let LoadError::Unusable { library, source } = &error else { panic!("{error}") };
    assert_eq!(*library, "libxenctrl");
    let text = source.to_string();
    assert!(text.ends_with("Could not obtain handle on privileged command interface"), "{text}");
    assert_eq!(source.source().unwrap().to_string(), "No such file or directory (os error 2)");
    assert_eq!(hypervisor.left(), 0);
}

#[test]
fn a_library_that_lacks_a_function_is_refused_with_its_name() {
    let Some(hypervisor) =
        Hypervisor::lacking_a_function("a_library_that_lacks_a_function_is_refused_with_its_name")
    else {
        return;
    };
    let error = hypervisor.open().unwrap_err();
    let LoadError::MissingFunction { library, name } = &error else { panic!("{error}") };
    assert_eq!(*name, "xc_sched_rtds_domain_get");
    assert!(library.ends_with("libxenctrl.so.4.17"), "{library}");
}

/// An interface is for one thread at a time.
#[test]
fn threads_are_answered_one_after_the_other() {
    let Some(hypervisor) = Hypervisor::start("threads_are_answered_one_after_the_other") else {
        return;
    };
    hypervisor.pool(0, CREDIT2);
    for domid in 1..=4 {
        hypervisor.domain(domid, Uuid::from_u128(domid.into()), 0, (domid.into(), 0));
    }
    let xenctrl = hypervisor.open().unwrap();
    thread::scope(|scope| {
        for domid in 1..=4_u16 {
            let xenctrl = &xenctrl;
            scope.spawn(move || {
                for _ in 0..100 {
                    let told = ask(xenctrl, domid).unwrap();
                    assert_eq!(told.uuid.as_u128(), u128::from(domid));
                    assert_eq!(told.sched_params.weight, i32::from(domid));
                }
            });
        }
    });
    assert_eq!(hypervisor.overlaps(), 0);
}
