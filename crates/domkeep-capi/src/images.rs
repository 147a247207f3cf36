//! Disks that were moved to other images: said in Xenstore and in the template together.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{
    Image as DiskImage, ReplaceError, ReplaceImage, Replaced, Replacement,
};
use libxl_config::template::LoadError;
use serde_json::{Value, json};

use crate::arguments::{domid, required, text, values};
use crate::boundary::call;
use crate::context::Ctx;
use crate::hotplug::of_domain;
use crate::outcome::give_json;
use crate::problem::{Error, Problem, status_of};
use crate::status::Status;
use crate::template::of_lock;

/// A disk and the image that it is on by now.
#[repr(C)]
pub struct Image {
    /// The disk: "xvda", "d0p0", "51712".
    pub vdev: *const c_char,
    /// The image's absolute path, as the domain with the backend sees it.
    pub path: *const c_char,
    /// The image's format, as in a configuration: "raw", "qcow", "qcow2", "vhd", "qed".
    pub format: *const c_char,
}

/// Says where disks are that QEMU or tapdisk has moved to other images while their domain runs: in Xenstore, in one transaction, and in
/// the template. Without it a domain that is saved and restored by xl opens the images from before, and loses what was written since.
///
/// It does not move the disks, and does not look at the images. Views that name them already are left alone, so that a call whose
/// process died is completed by the same call.
///
/// `*replaced`, which may be left out, becomes a JSON object: "before" and "after", the template's revisions, and "disks", each with
/// "vdev" and the images "template", "live" (both from before) and "image". It is freed with free().
///
/// DK_STATUS_REFUSED: dk_error_details() has a JSON array of every reason. After other failures it has a JSON object, which says of each
/// view, "live" and "template", which images it names: "old", "new", "changed by somebody else" or "not known". docs/replace-image.md
/// has all cases.
///
/// # Safety
///
/// `images` has `count` entries, whose texts end with a NUL. `replaced` and `error` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_replace_images(
    ctx: Option<&Ctx>,
    domid: u32,
    images: *const Image,
    count: usize,
    replaced: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_replace_images", error, || {
        let replaced = replaced.map(|replaced| replaced.write(ptr::null_mut()));
        let ctx = required(ctx, "ctx")?;
        let domid = self::domid(domid)?;
        let mut replacements = Vec::new();
        // SAFETY: as this function's own contract.
        for (index, image) in unsafe { values(images, count, "images") }?.iter().enumerate() {
            let name = |member: &str| format!("images[{index}].{member}");
            // SAFETY: as this function's own contract.
            let (vdev, path, format) = unsafe {
                (
                    text(image.vdev, &name("vdev"))?,
                    text(image.path, &name("path"))?,
                    text(image.format, &name("format"))?,
                )
            };
            let format = DiskFormat::from_name(format);
            replacements.push(Replacement::new(vdev, DiskImage::new(path, format)));
        }
        let hypervisor = ctx.hypervisor()?;
        let mut client = ctx.client()?;
        let mut work =
            ReplaceImage::new(&mut client, ctx.templates().as_ref()).deadline(ctx.deadline());
        if let Some(hypervisor) = &hypervisor {
            work = work.hypervisor(hypervisor.as_ref());
        }
        let done = work.replace(domid, &replacements);
        let done = done.map_err(|error| Problem::from(error).about(domid))?;
        replaced.map_or(Ok(()), |place| give_json(place, &in_json(&done)))
    })
}

fn in_json(done: &Replaced) -> Value {
    let image =
        |image: &DiskImage| json!({ "path": image.path, "format": image.format.to_string() });
    let disks: Vec<_> = done
        .disks
        .iter()
        .map(|disk| {
            json!({
                "vdev": disk.vdev,
                "template": image(&disk.template),
                "live": image(&disk.live),
                "image": image(&disk.image),
            })
        })
        .collect();
    json!({ "before": done.before, "after": done.after, "disks": disks })
}

impl From<ReplaceError> for Problem {
    fn from(error: ReplaceError) -> Self {
        let status = match &error {
            ReplaceError::Domain(error) => of_domain(error),
            ReplaceError::Lock(error) => of_lock(error),
            ReplaceError::Load(LoadError::Locked { .. }) => Status::Busy,
            ReplaceError::Load(_) => Status::Unreachable,
            ReplaceError::Refused { .. } => Status::Refused,
            ReplaceError::TemplateChanged { .. } | ReplaceError::Conflict { .. } => Status::Busy,
            ReplaceError::Unreadable { .. }
            | ReplaceError::Edit { .. }
            | ReplaceError::Text { .. } => Status::InvalidData,
            error => status_of(error).unwrap_or(Status::Unreachable),
        };
        let problem = Self::of(status, &error);
        if let ReplaceError::Refused { refusals, .. } = &error {
            let words: Vec<_> = refusals.iter().map(ToString::to_string).collect();
            return problem.details(&words);
        }
        let views = error.views();
        let (live, template) = (views.live.to_string(), views.template.to_string());
        problem.details(&json!({ "live": live, "template": template }))
    }
}
