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
