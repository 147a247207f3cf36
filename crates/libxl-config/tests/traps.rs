//! One test for each trap in libxl's JSON, named after it; `docs/libxl-json.md` has the same list with the decisions.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a sample that cannot be read must fail its test"
)]

use libxl_config::model::{
    BuildKind, ConfigDomid, DefBool, DevId, Disk, DiskFormat, DomainType, MemKb, PvInfo, SmbiosType,
};
use libxl_config::{
    DomainConfig, Finding, FindingKind, Layout, Mode, ReadError, Severity, SyntaxProblem, json,
};

/// Reads leniently; checks that strict mode says the same, and that what is not changed is written as it was.
fn read(text: impl AsRef<[u8]>) -> (DomainConfig, Vec<Finding>) {
    let text = text.as_ref();
    let read = DomainConfig::read(text, Mode::Lenient).unwrap_or_else(|error| panic!("{error}"));
    match DomainConfig::read(text, Mode::Strict) {
        Ok(strict) => assert!(strict.findings.iter().all(|finding| !finding.is_deviation())),
        Err(ReadError::Deviations { findings }) => assert_eq!(findings, read.findings),
        Err(error) => panic!("{error}"),
    }
    let document = json::parse(text, Mode::Lenient).unwrap().value;
    assert_eq!(read.config.to_value(), document);
    (read.config, read.findings)
}

/// The findings as paths and kinds, but for a missing guest type that short samples have no need of.
fn kinds(findings: &[Finding]) -> Vec<(String, FindingKind)> {
    let worth = findings
        .iter()
        .filter(|finding| !matches!(finding.kind, FindingKind::TypeDisagrees { .. }));
    worth.map(|finding| (finding.path.to_string(), finding.kind.clone())).collect()
}

fn build_info(fields: &str) -> String {
    format!("{{\"b_info\": {{{fields}}}}}")
}

#[test]
fn unknown_keys_are_named_and_kept() {
    let (mut config, findings) = read(r#"{"b_info": {"x": 1, "max_vcpus": 2, "y": {"z": []}}}"#);
    assert_eq!(
        kinds(&findings),
        [
            ("$.b_info.x".into(), FindingKind::UnknownKey),
            ("$.b_info.y".into(), FindingKind::UnknownKey)
        ]
    );
    config.b_info.max_vcpus = 3;
    config.b_info.kernel = Some("/k".into());
    let written = config.to_json(Layout::JsonC);
    let expected = r#"{"b_info":{"x":1,"max_vcpus":3,"kernel":"\/k","y":{"z":[]}}}"#;
    assert_eq!(written.replace(['\n', ' '], ""), expected);
}

#[test]
fn top_level_that_is_no_object_is_a_finding_and_not_a_configuration_of_defaults() {
    for text in ["[]", "null", "\"x\"", "5"] {
        let (config, findings) = read(text);
        assert_eq!(config, DomainConfig::default());
        assert!(matches!(findings[0].kind, FindingKind::NotAnObject { .. }), "{findings:?}");
        assert!(DomainConfig::read(text.as_bytes(), Mode::Strict).is_err());
    }
}

#[test]
fn wrong_json_type_is_the_default_with_a_finding() {
    let (config, findings) =
        read(build_info(r#""max_vcpus": "4", "kernel": 5, "avail_vcpus": {}, "acpi": true"#));
    assert_eq!(config.b_info.max_vcpus, 0);
    assert_eq!(config.b_info.kernel, None);
    let wrong = |expected, found| FindingKind::WrongType { expected, found };
    assert_eq!(
        kinds(&findings),
        [
            ("$.b_info.max_vcpus".into(), wrong("an integer", "string")),
            ("$.b_info.kernel".into(), wrong("a string", "number")),
            ("$.b_info.avail_vcpus".into(), wrong("an array", "object")),
            ("$.b_info.acpi".into(), wrong("a string", "boolean")),
        ]
    );
}

#[test]
fn wrong_json_type_of_a_struct_or_list_is_kept_until_it_is_set() {
    let (mut config, _) =
        read(r#"{"b_info": {"sched_params": "credit2"}, "disks": {"vdev": "xvda"}, "nics": [7]}"#);
    assert_eq!(config.disks, []);
    assert_eq!(config.nics.len(), 1);
    config.b_info.sched_params.weight = 256;
    config.disks.push(Disk { vdev: Some("xvdb".into()), ..Disk::default() });
    config.nics[0].devid = DevId::new(0);
    let written = config.to_json(Layout::JsonC).replace(['\n', ' '], "");
    let expected = r#"{"b_info":{"sched_params":{"weight":256}},"disks":[{"vdev":"xvdb"}],"nics":[{"devid":0}]}"#;
    assert_eq!(written, expected);
}

#[test]
fn u64_from_2_to_the_63_is_read_as_it_says() {
    let (config, findings) = read(build_info(r#""max_memkb": 9223372036854775808"#));
    assert_eq!(config.b_info.max_memkb, MemKb::new(1 << 63));
    assert!(matches!(findings[0].kind, FindingKind::BeyondI64 { .. }));
    assert_eq!(findings[0].severity(), Severity::Warning);
    assert!(kinds(&read(build_info(r#""max_memkb": 9223372036854775807"#)).1).is_empty());
}

#[test]
fn exponent_without_dot_is_read_as_it_says() {
    let (config, findings) = read(build_info(r#""max_vcpus": 1e3"#));
    assert_eq!(config.b_info.max_vcpus, 1000);
    let kind = FindingKind::Exponent { lexeme: "1e3".into(), value: 1000 };
    assert_eq!(kinds(&findings), [("$.b_info.max_vcpus".into(), kind)]);
}

#[test]
fn defbool_is_matched_by_its_beginning_and_named() {
    let (config, findings) =
        read(build_info(r#""acpi": "Trueish", "apic": "Tru", "claim_mode": "<default>""#));
    assert_eq!(config.b_info.acpi, DefBool::True);
    assert_eq!(config.b_info.apic, DefBool::Default);
    assert_eq!(
        kinds(&findings),
        [
            ("$.b_info.acpi".into(), FindingKind::DefBoolPrefix { text: "Trueish".into() }),
            ("$.b_info.apic".into(), FindingKind::BadDefBool { text: "Tru".into() }),
        ]
    );
}

#[test]
fn two_variants_of_one_union_do_not_abort() {
    let text = build_info(r#""type.hvm": {"boot": "c"}, "type.pv": {"e820_host": "True"}"#);
    let (mut config, findings) = read(&text);
    let first = "type.hvm".to_owned();
    assert_eq!(
        kinds(&findings),
        [("$.b_info[\"type.pv\"]".into(), FindingKind::TwoVariants { first })]
    );
    let BuildKind::Hvm(hvm) = &mut config.b_info.kind else { panic!("the first one wins") };
    hvm.boot = Some("d".into());
    let written = config.to_json(Layout::JsonC).replace(['\n', ' '], "");
    assert_eq!(written, r#"{"b_info":{"type.hvm":{"boot":"d"},"type.pv":{"e820_host":"True"}}}"#);

    // Choosing a variant leaves the only one.
    config.b_info.kind = BuildKind::Pv(PvInfo::default());
    let written = config.to_json(Layout::JsonC).replace(['\n', ' '], "");
    assert_eq!(written, r#"{"b_info":{"type.pv":{}}}"#);
}

#[test]
fn bitmap_is_not_sized_by_its_last_element() {
    let (config, findings) = read(build_info(r#""avail_vcpus": [0, 9, 2]"#));
    assert_eq!(config.b_info.avail_vcpus.iter().collect::<Vec<_>>(), [0, 2, 9]);
    assert_eq!(
        kinds(&findings),
        [("$.b_info.avail_vcpus[2]".into(), FindingKind::BitmapOrder { bit: 2 })]
    );
}

#[test]
fn negative_and_huge_bits_are_left_out_and_named() {
    let (config, findings) =
        read(build_info(r#""avail_vcpus": [-1, 3, 4294967295, 99999999999999999999]"#));
    assert_eq!(config.b_info.avail_vcpus.iter().collect::<Vec<_>>(), [3]);
    assert_eq!(
        findings.iter().filter(|f| matches!(f.kind, FindingKind::BitmapBit { .. })).count(),
        3
    );
}

#[test]
fn duplicate_keys_take_the_first_and_are_named() {
    let (mut config, findings) =
        read(build_info(r#""max_vcpus": 1, "x": 1, "max_vcpus": 2, "x": 2"#));
    assert_eq!(config.b_info.max_vcpus, 1);
    assert_eq!(
        kinds(&findings).iter().filter(|(_, kind)| *kind == FindingKind::DuplicateKey).count(),
        2
    );
    // Once it is changed there is one, or a json-c build of libxl would still see the old value.
    config.b_info.max_vcpus = 4;
    let written = config.to_json(Layout::JsonC).replace(['\n', ' '], "");
    assert_eq!(written, r#"{"b_info":{"max_vcpus":4,"x":1,"x":2}}"#);
}

#[test]
fn trailing_garbage_is_named_and_dropped() {
    for (text, octets) in
        [("{} x", 1), ("{}}", 1), ("{}\0more", 5), ("{} /* open", 8), ("{}\0\0", 1)]
    {
        let (config, findings) = read(text);
        assert_eq!(
            kinds(&findings),
            [("$".into(), FindingKind::TrailingGarbage { octets })],
            "{text:?}"
        );
        assert_eq!(config.to_json(Layout::JsonC), "{\n}");
    }
    assert!(read("{}\n \0").1.is_empty());
}

#[test]
fn missing_nul_is_named_where_a_stored_file_is_read() {
    assert!(DomainConfig::read_userdata(b"{}\n\0", Mode::Strict).is_ok());
    assert!(DomainConfig::read(b"{}\n", Mode::Strict).is_ok());
    let read = DomainConfig::read_userdata(b"{}\n", Mode::Lenient).unwrap();
    assert_eq!(read.findings[0].kind, FindingKind::MissingNul);
    assert!(DomainConfig::read_userdata(b"{}\n", Mode::Strict).is_err());
    assert_eq!(read.config.to_userdata(Layout::JsonC), b"{\n}\0");
}

#[test]
fn empty_file_of_a_crashed_host_is_an_error_of_its_own() {
    for text in [b"".as_slice(), b"\0", b" \n"] {
        assert_eq!(DomainConfig::read(text, Mode::Lenient), Err(ReadError::Empty));
    }
}

#[test]
fn nesting_and_size_are_limited() {
    let deep = "[".repeat(json::MAX_DEPTH + 1);
    assert!(matches!(json::parse(deep.as_bytes(), Mode::Lenient), Err(ReadError::TooDeep { .. })));
    let most = format!("{}{}", "[".repeat(json::MAX_DEPTH), "]".repeat(json::MAX_DEPTH));
    assert!(json::parse(most.as_bytes(), Mode::Strict).is_ok());
    for element in ["{}", "0"] {
        let many = format!(
            "{{\"disks\": [{}{element}]}}",
            format!("{element},").repeat(libxl_config::MAX_STRUCTS)
        );
        assert!(matches!(
            DomainConfig::read(many.as_bytes(), Mode::Lenient),
            Err(ReadError::TooManyStructs { .. })
        ));
        assert!(serde_json::from_str::<DomainConfig>(&many).is_err());
    }
    let large = vec![b' '; json::MAX_SIZE + 1];
    assert!(matches!(DomainConfig::read(&large, Mode::Lenient), Err(ReadError::TooLarge { .. })));
}

#[test]
fn findings_are_limited() {
    let many: String = (0..json::MAX_FINDINGS + 50).map(|key| format!("\"k{key}\":1,")).collect();
    let (_, findings) = read(format!("{{{many}\"c_info\":{{}}}}"));
    assert_eq!(findings.len(), json::MAX_FINDINGS + 1);
    assert!(findings.iter().any(|finding| matches!(finding.kind, FindingKind::TooMany { .. })));
}

#[test]
fn enum_names_are_read_in_any_letters() {
    let (mut config, findings) =
        read(r#"{"c_info": {"type": "PV"}, "disks": [{"format": "Qcow2"}]}"#);
    assert_eq!(config.c_info.domain_type, DomainType::Pv);
    assert_eq!(config.disks[0].format, DiskFormat::Qcow2);
    assert_eq!(kinds(&findings).len(), 2);
    config.disks[0].format = DiskFormat::Raw;
    assert!(config.to_json(Layout::Yajl).contains("\"format\": \"raw\""));
}

#[test]
fn unknown_enum_names_survive_and_null_is_the_default() {
    let (config, findings) = read(r#"{"disks": [{"format": "qcow3"}, {"format": null}]}"#);
    assert_eq!(config.disks[0].format.name(), "qcow3");
    assert_eq!(config.disks[1].format, DiskFormat::Unknown);
    assert!(matches!(&findings[0].kind, FindingKind::UnknownName { name, .. } if name == "qcow3"));
    assert!(matches!(&findings[1].kind, FindingKind::WrongType { found: "null", .. }));
    let mut fresh = config;
    fresh.forget_source();
    assert!(fresh.to_json(Layout::Yajl).contains("\"format\": \"qcow3\""));
}

#[test]
fn integers_that_do_not_fit_are_the_default_and_named() {
    let (config, findings) = read(
        r#"{"c_info": {"poolid": 4294967296, "domid": 99999999999}, "b_info": {"max_vcpus": 2147483648, "max_memkb": -1},
            "pcidevs": [{"bus": 256, "func": -1}]}"#,
    );
    assert_eq!(config.c_info.poolid, 0);
    assert_eq!(config.b_info.max_memkb, MemKb::UNSET);
    assert_eq!(config.pcidevs[0].bus, 0);
    let out = findings
        .iter()
        .filter(|finding| matches!(finding.kind, FindingKind::OutOfRange { .. }))
        .count();
    assert_eq!(out, 6);
    // Beyond what any integer type holds.
    let huge = "9".repeat(100);
    assert_eq!(read(build_info(&format!("\"max_vcpus\": {huge}"))).0.b_info.max_vcpus, 0);
}

#[test]
fn uuid_and_mac_that_are_none_are_unset_and_named() {
    let (config, findings) = read(
        r#"{"c_info": {"uuid": "a7989683"}, "nics": [{"mac": "0:16:3e:0:0:1"}, {"mac": "00:16:3E:00:00:01"}]}"#,
    );
    assert!(config.c_info.uuid.is_nil());
    assert_eq!(config.nics[1].mac.octets(), [0, 0x16, 0x3e, 0, 0, 1]);
    assert!(matches!(findings[0].kind, FindingKind::BadText { expected: "uuid", .. }));
    assert!(matches!(findings[1].kind, FindingKind::BadText { expected: "mac", .. }));
    assert!(matches!(findings[2].kind, FindingKind::TextCase { .. }));
}

#[test]
fn wrong_elements_of_lists_are_left_out_and_named() {
    let (config, findings) = read(
        r#"{"c_info": {"xsdata": {"a": 1, "b": null, "c": "d"}}, "b_info": {"extra": ["-a", 5, "-b"], "irqs": ["9", 10]}}"#,
    );
    assert_eq!(config.b_info.extra, ["-a", "-b"]);
    assert_eq!(config.b_info.irqs, [10]);
    assert_eq!(
        config.c_info.xsdata.0,
        [("b".to_owned(), None), ("c".to_owned(), Some("d".to_owned()))]
    );
    assert_eq!(
        kinds(&findings)
            .iter()
            .filter(|(_, kind)| matches!(kind, FindingKind::WrongElement { .. }))
            .count(),
        3
    );
}

#[test]
fn generation_id_that_is_longer_or_wider_is_read_as_libxl_does() {
    let id =
        |elements: &str| build_info(&format!("\"type.hvm\": {{\"ms_vm_genid\": [{elements}]}}"));
    let sixteen = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 511";
    let (config, findings) = read(id(&format!("{sixteen}, 17")));
    let BuildKind::Hvm(hvm) = &config.b_info.kind else { panic!("a variant") };
    assert_eq!(hvm.ms_vm_genid.0[15], 255);
    assert_eq!(kinds(&findings).len(), 2);
    let (config, findings) = read(id("1, 2"));
    let BuildKind::Hvm(hvm) = &config.b_info.kind else { panic!("a variant") };
    assert_eq!(hvm.ms_vm_genid.0, [0; 16]);
    assert_eq!(kinds(&findings)[0].1, FindingKind::GenIdLength { count: 2 });
}

#[test]
fn cpuid_is_read_in_both_forms_and_kept_in_its_own() {
    let list = include_bytes!("data/cpuid-list.json");
    let object = include_bytes!("data/cpuid-object.json");
    let (mut old, mut new) = (read(list).0, read(object).0);
    assert_eq!(old, new);
    assert_eq!(old.b_info.cpuid.leaves[1].subleaf, Some(0));
    assert_eq!(old.to_json(Layout::Yajl).as_bytes(), list);
    assert_eq!(new.to_json(Layout::Yajl).as_bytes(), object);
    old.b_info.cpuid.leaves.pop();
    new.b_info.cpuid.leaves.pop();
    assert!(old.to_value().get("b_info").unwrap().get("cpuid").unwrap().as_array().is_some());
    assert!(new.to_value().get("b_info").unwrap().get("cpuid").unwrap().as_object().is_some());
}

#[test]
fn c_info_type_that_disagrees_with_the_union_is_named() {
    let text = r#"{"c_info": {"type": "pvh"}, "b_info": {"type.pv": {}}}"#;
    let (config, findings) = read(text);
    assert_eq!(findings[0].kind, FindingKind::TypeDisagrees { c_info: "pvh".into(), b_info: "pv" });
    assert_eq!(findings[0].path.to_string(), "$.c_info.type");
    assert_eq!(findings[0].position.map(|position| position.column), Some(13));
    assert_eq!(config.c_info.domain_type, DomainType::Pvh);
    assert_eq!(config.b_info.kind.name(), "pv");
}

#[test]
fn deprecated_duplicates_are_noted_and_their_disagreement_is_a_deviation() {
    let text = |new: &str| {
        let kernel = format!("\"kernel\": \"{new}\", \"type.pv\": {{\"kernel\": \"/old\"}}");
        format!("{{\"c_info\": {{\"type\": \"pv\"}}, \"b_info\": {{{kernel}}}}}")
    };
    let (_, findings) = read(text("/old"));
    assert_eq!(findings[0].severity(), Severity::Note);
    assert_eq!(findings[0].path.to_string(), "$.b_info[\"type.pv\"].kernel");
    assert!(DomainConfig::read(text("/old").as_bytes(), Mode::Strict).is_ok());
    let (config, findings) = read(text("/new"));
    assert_eq!(findings[0].kind, FindingKind::DeprecatedDisagrees { instead: "b_info.kernel" });
    assert_eq!(config.b_info.kernel.as_deref(), Some("/new"));
}

#[test]
fn both_layouts_are_read_and_written_octet_for_octet() {
    let yajl = include_bytes!("data/hvm-yajl.stored");
    let json_c = include_bytes!("data/hvm-json-c.json");
    let (stored, printed) = (read(yajl), read(json_c));
    assert_eq!(stored, printed);
    assert_eq!(stored.1, []);
    assert_eq!(printed.0.to_userdata(Layout::Yajl), yajl);
    assert_eq!(stored.0.to_json(Layout::JsonC).as_bytes(), json_c);
}

#[test]
fn negative_numbers_of_json_c_builds_are_read_back() {
    let (mut config, findings) = read(include_bytes!("data/json-c-negative.json"));
    assert_eq!(config.pcidevs[0].vfunc_mask, u32::MAX);
    assert_eq!(config.c_info.ssidref, 1 << 31);
    assert_eq!(config.b_info.cpuid.leaves[0].leaf, 0x8000_0001);
    assert_eq!(findings.len(), 3);
    assert!(findings.iter().all(|finding| finding.severity() == Severity::Error));
    // Not changed, it stays; changed or new, it is never written like that.
    assert!(config.to_json(Layout::JsonC).contains("\"vfunc_mask\":-1"));
    config.forget_source();
    assert!(config.to_json(Layout::JsonC).contains("\"vfunc_mask\":4294967295"));
}

#[test]
fn extensions_of_json_c_are_read_and_named() {
    let text = include_bytes!("data/json-c-extensions.json");
    let (config, findings) = read(text);
    assert_eq!(config.c_info.name.as_deref(), Some("one"));
    assert_eq!(config.b_info.max_vcpus, 7);
    assert_eq!(config.b_info.cmdline.as_deref(), Some("a\tb"));
    assert!(config.disks[0].direct_io_safe);
    for expected in [
        FindingKind::Comment,
        FindingKind::SingleQuotes,
        FindingKind::LiteralCase,
        FindingKind::NotFinite,
        FindingKind::LeadingZeros,
        FindingKind::UnfinishedNumber,
        FindingKind::TrailingComma,
        FindingKind::ControlCharacter,
    ] {
        assert!(findings.iter().any(|finding| finding.kind == expected), "{expected:?}");
    }
}

#[test]
fn what_neither_library_reads_is_a_syntax_error_with_its_place() {
    for text in [
        "{a:1}",
        "[.5]",
        "[+1]",
        "[-]",
        "[\"\\q\"]",
        "[,]",
        "[1,,2]",
        "['\\'']",
        "\u{feff}{}",
        "[1\u{b}]",
        "[-nan]",
        "[\"\\u12g4\"]",
        "[tru]",
        "{\"a\" 1}",
        "[1 2]",
        "/x",
        "{\"a\":1",
    ] {
        let error = json::parse(text.as_bytes(), Mode::Lenient).unwrap_err();
        assert!(matches!(error, ReadError::Syntax { .. }), "{text:?}: {error}");
    }
    let error = json::parse(b"{\n  \"a\": [1,\n    ?]\n}", Mode::Lenient).unwrap_err();
    assert_eq!(error.to_string(), "line 3 column 5: '?' where a value should be");
    let error = json::parse(b"{\"a\": ", Mode::Lenient).unwrap_err();
    let ReadError::Syntax { problem, .. } = error else { panic!("{error}") };
    assert_eq!(problem, SyntaxProblem::End { expected: "a value" });
}

#[test]
fn invalid_utf8_costs_its_string_and_nothing_else() {
    let text = include_bytes!("data/broken-utf8.json");
    let (mut config, findings) = read(text);
    assert_eq!(kinds(&findings), [("$.b_info.cmdline".into(), FindingKind::InvalidUtf8)]);
    assert_eq!(config.b_info.cmdline.as_deref(), Some("greeting=gr\u{fffd}\u{fffd}"));
    assert_eq!(config.b_info.max_vcpus, 2);
    // The octets are given back as long as the field is not changed.
    config.b_info.max_vcpus = 3;
    let written = config.to_userdata(Layout::Yajl);
    assert!(written.windows(4).any(|octets| octets == b"gr\xfc\xdf"));
}

#[test]
fn nul_and_half_surrogates_in_strings_are_named() {
    let (config, findings) = read(build_info(
        r#""kernel": "a\u0000b", "cmdline": "\ud800x", "ramdisk": "\ud83d\ude00""#,
    ));
    assert_eq!(
        kinds(&findings),
        [
            ("$.b_info.kernel".into(), FindingKind::NulInString),
            ("$.b_info.cmdline".into(), FindingKind::LoneSurrogate),
        ]
    );
    assert_eq!(config.b_info.ramdisk.as_deref(), Some("😀"));
    assert!(config.to_json(Layout::JsonC).contains("\"cmdline\":\"\\ud800x\""));
}

#[test]
fn zero_is_written_where_unset_is_something_else_and_unset_where_zero_is() {
    let mut config = DomainConfig::default();
    config.b_info.video_memkb = MemKb::new(0);
    config.c_info.domid = ConfigDomid::INVALID;
    config.b_info.sched_params.cap = 0;
    config.disks.push(Disk {
        vdev: Some("xvda".into()),
        readwrite: 0,
        pdev_path: Some(String::new()),
        ..Disk::default()
    });
    let written = config.to_json(Layout::JsonC).replace(['\n', ' '], "");
    let expected = concat!(
        r#"{"c_info":{"domid":4294967295},"b_info":{"video_memkb":0,"sched_params":{"cap":0},"#,
        r#""type.invalid":{},"arch_arm":{},"arch_x86":{}},"disks":[{"pdev_path":"","vdev":"xvda"}]}"#
    );
    assert_eq!(written, expected);
}

#[test]
fn a_new_configuration_has_only_what_4_17_knows_unless_it_is_set() {
    let mut config = DomainConfig::default();
    let written = config.to_json(Layout::Yajl);
    assert!(!written.contains("arm_sci") && !written.contains("xenstore_quota"), "{written}");
    config.b_info.bootloader_restrict = DefBool::True;
    config.b_info.kind = BuildKind::Hvm(Box::default());
    if let BuildKind::Hvm(hvm) = &mut config.b_info.kind {
        hvm.smbios
            .push(libxl_config::model::Smbios { key: Some(SmbiosType::Oem), ..Default::default() });
    }
    let written = config.to_json(Layout::JsonC);
    assert!(
        written.contains("\"bootloader_restrict\":\"True\"") && written.contains("\"key\":\"oem\""),
        "{written}"
    );
}

#[test]
fn half_understood_configuration_is_changed_in_one_place_only() {
    let text = std::str::from_utf8(include_bytes!("data/half-understood.json")).unwrap();
    let (mut config, _) = read(text);
    assert_eq!(config.to_json(Layout::Yajl), text);

    config.c_info.name = Some("even".into());
    config.disks[2].readwrite = 1;
    config.disks.remove(0);
    config.on_crash = libxl_config::model::ShutdownAction::Preserve;
    let first = text.find("        {\n            \"x-tier\"").unwrap();
    let second = text.find("        \"not a disk\"").unwrap();
    let expected = format!("{}{}", &text[..first], &text[second..])
        .replace("\"name\": \"odd\"", "\"name\": \"even\"")
        .replace("\"vdev\": \"xvdb\"\n", "\"vdev\": \"xvdb\",\n            \"readwrite\": 1\n")
        .replace(
            "    ],\n    \"x-last\"",
            "    ],\n    \"on_crash\": \"preserve\",\n    \"x-last\"",
        );
    assert_eq!(config.to_json(Layout::Yajl), expected);
}

#[test]
fn a_field_set_back_to_its_default_is_removed() {
    let (mut config, _) =
        read(r#"{"c_info": {"name": "a", "hap": "True"}, "nics": [{"devid": 0}]}"#);
    config.c_info.name = None;
    config.c_info.hap = DefBool::Default;
    config.nics.clear();
    assert_eq!(config.to_json(Layout::JsonC).replace(['\n', ' '], ""), r#"{"c_info":{}}"#);
}

#[test]
fn positions_are_those_of_the_text() {
    let (_, findings) = read("{\n  \"c_info\": {\n    \"nmae\": \"x\"\n  }\n}");
    let finding = &findings[0];
    let position = finding.position.unwrap();
    assert_eq!((position.line, position.column, position.offset), (3, 5, 20));
    assert_eq!(
        serde_json::to_string(finding).unwrap(),
        concat!(
            r#"{"path":"$.c_info.nmae","severity":"warning","message":"unknown key, which libxl ignores and loses "#,
            r#"on its next write; it is kept","position":{"offset":20,"line":3,"column":5}}"#
        )
    );
    assert_eq!(
        finding.to_string(),
        "$.c_info.nmae: line 3 column 5: unknown key, which libxl ignores and loses on its next write; it is kept"
    );
}

#[test]
fn samples_are_stable() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for sample in std::fs::read_dir(folder).unwrap() {
        let octets = std::fs::read(sample.unwrap().path()).unwrap();
        assert_eq!(libxl_config::check_stability(&octets), Ok(()));
    }
}

#[test]
fn documents_cross_into_serde_and_back() {
    let text = r#"{"b":1,"a":[-1,18446744073709551615,1.5,1e300,null,true,"x\n"],"o":{}}"#;
    let ours = json::parse(text.as_bytes(), Mode::Strict).unwrap().value;
    let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&ours).unwrap(), theirs);
    let back: json::Value = serde_json::from_value(theirs.clone()).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), theirs);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(
        serde_json::from_str::<json::Value>(&deep).unwrap_err().to_string().contains("64 levels")
    );
}
