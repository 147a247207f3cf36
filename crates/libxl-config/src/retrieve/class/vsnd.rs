//! Paravirtual sound cards: `vsnd`.
//!
//! All that Xenstore has of them stands in the frontend tree, where the guest can write: so a template's card is never
//! changed by it, and only a card that no template knows is built from it.

use super::rule::number;
use super::{Class, ClassInfo, Layout, Live, Rule, Taken, numbered_devices};
use crate::model::{Vsnd, VsndFormat, VsndParams, VsndPcm, VsndStream, VsndStreamType};
use crate::retrieve::report::{BadValue, DeviceClass};

pub(in crate::retrieve) struct Vsnds;

impl Class for Vsnds {
    numbered_devices!(Vsnd, vsnds);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Vsnd,
        kinds: &["vsnd"],
        backend_kinds: &["vsnd"],
        keys: &[],
        frontend_keys: &[
            "long-name",
            "short-name",
            "name",
            "unique-id",
            "type",
            "sample-rates",
            "sample-formats",
            "channels-min",
            "channels-max",
            "buffer-size",
        ],
        layout: Layout::Nested(2),
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Vsnd>] = &[];

    fn take_guests_word(vsnd: &mut Vsnd, live: &Live<'_>, taken: &mut Taken) {
        let mut card = Reader { live, directory: String::new(), taken };
        vsnd.short_name = card.text("short-name");
        vsnd.long_name = card.text("long-name");
        vsnd.params = card.params();
        for number in live.numbered("") {
            let mut pcm = card.below(number);
            let mut device =
                VsndPcm { name: pcm.text("name"), params: pcm.params(), ..VsndPcm::default() };
            for number in live.numbered(&pcm.directory) {
                let mut stream = pcm.below(number);
                device.streams.push(VsndStream {
                    unique_id: stream.text("unique-id"),
                    direction: stream.parsed("type", direction),
                    params: stream.params(),
                    ..VsndStream::default()
                });
            }
            vsnd.pcms.push(device);
        }
    }
}

/// Reads the card, a device of it, or a stream of that.
struct Reader<'r, 'a> {
    live: &'r Live<'a>,
    /// With a slash at the end; empty for the card itself.
    directory: String,
    taken: &'r mut Taken,
}

impl Reader<'_, '_> {
    fn below(&mut self, number: usize) -> Reader<'_, '_> {
        let directory = format!("{}{number}/", self.directory);
        Reader { live: self.live, directory, taken: self.taken }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.parsed(key, |text| Ok(text.to_owned()))
    }

    fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Option<T> {
        let key = format!("{}{key}", self.directory);
        let text = self.taken.text(&key, self.live.guests(&key))?;
        self.taken.good(&key, parse(text))
    }

    /// Each that can be read; the others as if they were not there.
    fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, BadValue>) -> Vec<T> {
        let key = format!("{}{key}", self.directory);
        let Some(text) = self.taken.text(&key, self.live.guests(&key)) else { return Vec::new() };
        let items = text.split(',').filter(|item| !item.is_empty());
        items.filter_map(|item| self.taken.good(&key, parse(item))).collect()
    }

    fn params(&mut self) -> VsndParams {
        VsndParams {
            sample_rates: self.list("sample-rates", number),
            sample_formats: self.list("sample-formats", format),
            channels_min: self.parsed("channels-min", number).unwrap_or_default(),
            channels_max: self.parsed("channels-max", number).unwrap_or_default(),
            buffer_size: self.parsed("buffer-size", number).unwrap_or_default(),
            ..VsndParams::default()
        }
    }
}

fn format(text: &str) -> Result<VsndFormat, BadValue> {
    match VsndFormat::from_name(text) {
        VsndFormat::Other(_) => Err(BadValue::not_a(text, "a format of sound samples")),
        known => Ok(known),
    }
}

fn direction(text: &str) -> Result<VsndStreamType, BadValue> {
    match text {
        "p" => Ok(VsndStreamType::P),
        "c" => Ok(VsndStreamType::C),
        _ => Err(BadValue::not_a(text, "p or c")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use crate::retrieve::plan::GUEST_CHILDREN_MAX;
    use crate::retrieve::report::Unseen;

    const ENTRY: &str = r#"{ "devid": 0, "short_name": "card", "long_name": "A card",
        "params": { "sample_rates": [ 44100, 48000 ], "sample_formats": [ "s16_le", "u8" ],
                    "channels_min": 1, "channels_max": 2, "buffer_size": 65536 },
        "pcms": [ { "name": "main", "params": { "buffer_size": 4096 }, "streams": [
            { "unique_id": "p0", "type": "p", "params": { "channels_max": 6 } },
            { "unique_id": "c0", "type": "c", "params": {} } ] } ] }"#;

    fn scene() -> Scene {
        Scene::new(
            "vsnds",
            ENTRY,
            r#"
            /local/domain/7/device/vsnd/0
                state = "4"
                short-name = "card"
                long-name = "A card"
                sample-rates = "44100,48000"
                sample-formats = "s16_le,u8"
                channels-min = "1"
                channels-max = "2"
                buffer-size = "65536"
                0/name = "main"
                0/buffer-size = "4096"
                0/0/unique-id = "p0"
                0/0/type = "p"
                0/0/channels-max = "6"
                0/1/unique-id = "c0"
                0/1/type = "c"
            /libxl/7/device/vsnd/0
                backend = "/local/domain/0/backend/vsnd/7/0"
            /local/domain/0/backend/vsnd/7/0
                state = "4"
            "#,
        )
    }

    /// Every key of the card is the guest's.
    const KEYS: [&str; 9] = [
        "short-name",
        "long-name",
        "sample-rates",
        "sample-formats",
        "channels-min",
        "buffer-size",
        "0/name",
        "0/0/unique-id",
        "0/0/type",
    ];

    #[test]
    fn the_guest_cannot_change_a_card_of_the_template() {
        scene().stays();
        for key in KEYS {
            scene().live(key, "x").stays();
            scene().live(key, b"\xff").stays();
            scene().gone(key).stays();
        }
        scene().live("1/name", "more").stays();
        scene().gone("/local/domain/7/device").stays();
    }

    #[test]
    fn a_card_is_built_with_devices_and_streams() {
        scene().is_built_as(ENTRY);
    }

    #[test]
    fn one_bad_value_is_named_and_the_rest_of_the_card_stays() {
        for (key, live) in [
            ("sample-rates", "44100,fast,48000"),
            ("sample-formats", "s16_le,s99_me,u8"),
            ("0/0/type", "playback"),
            ("channels-min", "-1"),
            ("0/buffer-size", "4096 "),
        ] {
            let outcome = scene().entries(&[]).live(key, live).merge();
            let card = &outcome.config.vsnds[0];
            assert_eq!(card.pcms[0].streams.len(), 2, "{key}");
            assert_eq!((card.params.sample_rates.len(), card.params.sample_formats.len()), (2, 2));
            let [problem] = &outcome.only().problems[..] else { panic!("{:#?}", outcome.only()) };
            assert_eq!(problem.at, key);
        }
        for key in KEYS {
            let outcome = scene().entries(&[]).live(key, b"\xff\x1b").merge();
            assert_eq!(outcome.config.vsnds.len(), 1);
            assert_eq!(outcome.only().problems[0].at, key);
        }
    }

    #[test]
    fn a_guest_cannot_make_a_card_grow_without_end() {
        let mut scene = scene().entries(&[]);
        for number in 0..100 {
            scene = scene.live(&format!("{number}/{number}/unique-id"), "x");
        }
        let outcome = scene.merge();
        assert_eq!(outcome.config.vsnds[0].pcms.len(), GUEST_CHILDREN_MAX);
        let crowded = Unseen::Crowded {
            path: "/local/domain/7/device/vsnd/0".to_owned(),
            read: GUEST_CHILDREN_MAX,
        };
        assert!(outcome.unseen.contains(&crowded), "{:?}", outcome.unseen);
    }
}
