//! The two layouts libxl has written, octet for octet.

use super::{Object, Text, Value};

/// How JSON text is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As libyajl writes it, for libxl in every release: four spaces, `"k": v`, an empty line inside `{}` and `[]`,
    /// a newline at the end.
    #[default]
    Yajl,
    /// As json-c writes it, for libxl since 4.21 where json-c is there: two spaces, `"k":v`, `{` and `}` of an empty
    /// object on two lines, `/` as `\/`, no newline at the end.
    JsonC,
}

impl Value {
    /// The text. Strings that were no valid UTF-8 show U+FFFD; [`Value::to_octets`] gives them back as they were.
    pub fn to_text(&self, layout: Layout) -> String {
        match String::from_utf8(self.to_octets(layout)) {
            Ok(text) => text,
            Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
        }
    }

    /// The text as octets: valid UTF-8 unless a string read was not.
    pub fn to_octets(&self, layout: Layout) -> Vec<u8> {
        let mut emitter = Emitter { out: Vec::new(), layout, depth: 0 };
        emitter.value(self);
        if layout == Layout::Yajl {
            emitter.out.push(b'\n');
        }
        emitter.out
    }
}

struct Emitter {
    out: Vec<u8>,
    layout: Layout,
    depth: usize,
}

impl Emitter {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.extend(b"null"),
            Value::Bool(true) => self.out.extend(b"true"),
            Value::Bool(false) => self.out.extend(b"false"),
            Value::Number(number) => self.out.extend(number.lexeme().as_bytes()),
            Value::String(text) => self.string(text),
            Value::Array(elements) => self.array(elements),
            Value::Object(object) => self.object(object),
        }
    }

    fn array(&mut self, elements: &[Value]) {
        self.open(b'[');
        for (index, element) in elements.iter().enumerate() {
            self.separate(index);
            self.value(element);
        }
        self.close(b']', elements.is_empty());
    }

    fn object(&mut self, object: &Object) {
        self.open(b'{');
        for (index, member) in object.members().iter().enumerate() {
            self.separate(index);
            self.string(&member.key);
            self.out.extend(match self.layout {
                Layout::Yajl => b": ".as_slice(),
                Layout::JsonC => b":",
            });
            self.value(&member.value);
        }
        self.close(b'}', object.is_empty());
    }

    fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.out.push(b'\n');
        self.depth += 1;
    }

    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.out.extend(b",\n");
        }
        self.indent();
    }

    fn close(&mut self, bracket: u8, empty: bool) {
        self.depth -= 1;
        if !empty || self.layout == Layout::Yajl {
            self.out.push(b'\n');
        }
        self.indent();
        self.out.push(bracket);
    }

    fn indent(&mut self) {
        let width = match self.layout {
            Layout::Yajl => 4,
            Layout::JsonC => 2,
        };
        self.out.resize(self.out.len() + self.depth * width, b' ');
    }

    fn string(&mut self, text: &Text) {
        self.out.push(b'"');
        let octets = text.octets();
        let mut index = 0;
        while let Some(&octet) = octets.get(index) {
            index += 1;
            match octet {
                b'"' => self.out.extend(b"\\\""),
                b'\\' => self.out.extend(b"\\\\"),
                b'\n' => self.out.extend(b"\\n"),
                b'\r' => self.out.extend(b"\\r"),
                b'\t' => self.out.extend(b"\\t"),
                0x08 => self.out.extend(b"\\b"),
                0x0c => self.out.extend(b"\\f"),
                b'/' if self.layout == Layout::JsonC => self.out.extend(b"\\/"),
                0..0x20 => self.escape(u16::from(octet)),
                // The three octets of a lone surrogate, which only an escape can spell.
                0xed if text.is_lossy() && octets.get(index).is_some_and(|next| *next >= 0xa0) => {
                    match (octets.get(index), octets.get(index + 1)) {
                        (Some(&high @ 0xa0..=0xbf), Some(&low @ 0x80..=0xbf)) => {
                            index += 2;
                            let unit = 0xd000 | u16::from(high & 0x3f) << 6 | u16::from(low & 0x3f);
                            self.escape(unit);
                        }
                        _ => self.out.push(octet),
                    }
                }
                _ => self.out.push(octet),
            }
        }
        self.out.push(b'"');
    }

    /// `\u` and four hexadecimal digits: capitals from yajl, small letters from json-c.
    fn escape(&mut self, unit: u16) {
        let text = match self.layout {
            Layout::Yajl => format!("\\u{unit:04X}"),
            Layout::JsonC => format!("\\u{unit:04x}"),
        };
        self.out.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let mut inner = Object::new();
        inner.push("x", "/\u{1}\u{1f}\u{7f}\u{8}\u{c}\"\\é");
        let mut object = Object::new();
        object.push("a", Value::Array(Vec::new()));
        object.push("b", Object::new());
        object.push("c", Value::Array(vec![1u64.into(), (-2i64).into(), inner.into()]));
        object.into()
    }

    #[test]
    fn json_c_layout_is_what_json_c_0_16_writes() {
        let expected = "{\n  \"a\":[\n  ],\n  \"b\":{\n  },\n  \"c\":[\n    1,\n    -2,\n    {\n      \
                        \"x\":\"\\/\\u0001\\u001f\u{7f}\\b\\f\\\"\\\\é\"\n    }\n  ]\n}";
        assert_eq!(sample().to_text(Layout::JsonC), expected);
    }

    #[test]
    fn yajl_layout_has_an_empty_line_in_what_is_empty() {
        let expected = "{\n    \"a\": [\n\n    ],\n    \"b\": {\n\n    },\n    \"c\": [\n        1,\n        -2,\n        \
                        {\n            \"x\": \"/\\u0001\\u001F\u{7f}\\b\\f\\\"\\\\é\"\n        }\n    ]\n}\n";
        assert_eq!(sample().to_text(Layout::Yajl), expected);
    }

    #[test]
    fn broken_strings_are_given_back_as_they_were() {
        let text = Value::String(Text::from_octets(b"a\xffb\xed\xa0\x80c\xed\xa0".to_vec()));
        assert_eq!(text.to_octets(Layout::JsonC), b"\"a\xffb\\ud800c\xed\xa0\"");
        assert!(text.to_text(Layout::Yajl).contains('\u{fffd}'));
    }
}
