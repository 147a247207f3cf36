//! Sound cards.

use super::enumeration::enumerations;
use super::scalar::{ConfigDomid, DevId};
use super::table::records;

records! {
    /// One paravirtual sound card, identified by `devid`.
    Vsnd = "device_vsnd" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// Short name of the card.
        short_name: Option<String>,
        /// Long name of the card.
        long_name: Option<String>,
        /// Sound parameters.
        params: VsndParams,
        /// Its PCM devices.
        pcms: Vec<VsndPcm>,
    }

    /// Sound parameters, for a card, a device or a stream.
    VsndParams = "vsnd_params" {
        /// Sample rates, in Hz.
        sample_rates: Vec<u32>,
        /// Sample formats.
        sample_formats: Vec<VsndFormat>,
        /// Fewest channels.
        channels_min: u32,
        /// Most channels.
        channels_max: u32,
        /// Largest buffer, in octets.
        buffer_size: u32,
    }

    /// One PCM device of a sound card.
    VsndPcm = "vsnd_pcm" {
        /// Its name.
        name: Option<String>,
        /// Sound parameters.
        params: VsndParams,
        /// Its streams.
        streams: Vec<VsndStream>,
    }

    /// One stream of a PCM device.
    VsndStream = "vsnd_stream" {
        /// Name that backend and frontend agree on.
        unique_id: Option<String>,
        /// Its direction.
        direction as "type": Option<VsndStreamType>,
        /// Sound parameters.
        params: VsndParams,
    }
}

enumerations! {
    /// Format of sound samples.
    VsndFormat = "vsnd_pcm_format" {
        S8 = "s8" 1,
        U8 = "u8" 2,
        S16Le = "s16_le" 3,
        S16Be = "s16_be" 4,
        U16Le = "u16_le" 5,
        U16Be = "u16_be" 6,
        S24Le = "s24_le" 7,
        S24Be = "s24_be" 8,
        U24Le = "u24_le" 9,
        U24Be = "u24_be" 10,
        S32Le = "s32_le" 11,
        S32Be = "s32_be" 12,
        U32Le = "u32_le" 13,
        U32Be = "u32_be" 14,
        F32Le = "f32_le" 15,
        F32Be = "f32_be" 16,
        F64Le = "f64_le" 17,
        F64Be = "f64_be" 18,
        Iec958SubframeLe = "iec958_subframe_le" 19,
        Iec958SubframeBe = "iec958_subframe_be" 20,
        MuLaw = "mu_law" 21,
        ALaw = "a_law" 22,
        ImaAdpcm = "ima_adpcm" 23,
        Mpeg = "mpeg" 24,
        Gsm = "gsm" 25,
    }

    /// Direction of a sound stream: playback or capture.
    VsndStreamType = "vsnd_stream_type" {
        P = "p" 1,
        C = "c" 2,
    }
}
