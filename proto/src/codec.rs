//! How messages become gRPC's bytes: prost, with buffers that start small.
//!
//! tonic gives each stream two buffers of 8 KiB for as long as it lasts. Nearly all streams of a gateway
//! are phones' that say nothing, so that this would be a third of what they cost. Others grow by what a
//! message needs, at once.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, EncodeBuf};
use tonic_prost::ProstDecoder;

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
    type Encoder = Encoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

/// prost's encoding, into room for all of a message.
#[derive(Clone, Debug)]
pub struct Encoder<T>(PhantomData<T>);

impl<T: Message> tonic::codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.encoded_len());
        message.encode(into).expect("there is room");
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, JOINED_BYTES)
}
