//! Tests of libxl's directory that need to write, or to look behind the store.

mod beside_libxl;
mod files;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{UserdataDir, names};
use crate::template::{DomId, TemplateKey, TemplateText};

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key() -> TemplateKey {
    TemplateKey::new(DomId::new(7), Uuid::from_u128(0x0a79_8968_36a5_f495_ab64_f114_38bc_e7d6))
}

fn text(octets: impl Into<Vec<u8>>) -> TemplateText {
    TemplateText::new(octets).unwrap()
}

fn open(directory: &Path) -> UserdataDir {
    UserdataDir::open(directory).unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort_unstable();
    names
}
