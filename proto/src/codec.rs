//! How messages become gRPC's bytes: prost, with buffers that start small.
//!
//! tonic gives each stream two buffers of 8 KiB for as long as it lasts. Nearly all streams of a gateway
//! are phones' that say nothing, so that this would be a third of what they cost; a stream under load
//! grows its own within a frame or two.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// A `Welcome`, a `Ping`, a short text: what a quiet device says and hears fits.
const BUFFER_BYTES: usize = 256;

/// Messages that wait are joined up to here, as tonic does by itself.
const JOINED_BYTES: usize = 32 * 1024;

/// The codec of the generated services and clients.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, JOINED_BYTES)
}
