//! xenstore-migration streams as texts, and texts as streams.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use crate::arguments::{empty, required, text, values};
use crate::boundary::call;
use crate::outcome::{give_text, give_values};
use crate::problem::{Error, Problem};
use crate::status::Status;
