//! Route tokens: the user part of our Record-Route, by which a request inside a dialog finds its way.
//!
//! A token is a MAC over instance, Call-ID and trunk next hop of one dialog. We know our own Route by its token alone; host,
//! port and transport are never compared, since PBXs rewrite them.

use aws_lc_rs::hmac;

use super::ids::{InstanceId, ShardId, base32, from_base32};
use super::output::Hop;

const MAC_BYTES: usize = 12;
const TOKEN_BYTES: usize = 2 + 8 + MAC_BYTES;
/// Characters of a token's text.
pub(crate) const TOKEN_TEXT_LEN: usize = (TOKEN_BYTES * 8).div_ceil(5);

/// The number of a dialog in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DialogId(pub(crate) u64);

/// Reads shard and dialog number of a text that has a token's form. Says nothing of its validity.
pub(crate) fn read(user: &[u8]) -> Option<(ShardId, DialogId, [u8; MAC_BYTES])> {
    let bytes: [u8; TOKEN_BYTES] = from_base32(user)?;
    let shard = ShardId(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[2..10]);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&bytes[10..]);
    Some((shard, DialogId(u64::from_be_bytes(number)), mac))
}

/// Mints and checks the tokens of one shard.
pub(crate) struct Mint {
    shard: ShardId,
    key: hmac::Key,
}

impl Mint {
    pub(crate) fn new(shard: ShardId, key: [u8; 32]) -> Self {
        Self { shard, key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// The token of a dialog.
    pub(crate) fn token(&self, dialog: DialogId, instance: InstanceId, call_id: &[u8], trunk: &Hop) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..2].copy_from_slice(&self.shard.0.to_be_bytes());
        bytes[2..10].copy_from_slice(&dialog.0.to_be_bytes());
        bytes[10..].copy_from_slice(&self.mac(dialog, instance, call_id, trunk));
        let mut text = String::with_capacity(TOKEN_TEXT_LEN);
        base32(&bytes, &mut text);
        text
    }

    /// Whether `mac` is the one of this dialog.
    pub(crate) fn verify(
        &self,
        mac: &[u8; MAC_BYTES],
        dialog: DialogId,
        instance: InstanceId,
        call_id: &[u8],
        trunk: &Hop,
    ) -> bool {
        let expected = self.mac(dialog, instance, call_id, trunk);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, mac).is_ok()
    }

    fn mac(&self, dialog: DialogId, instance: InstanceId, call_id: &[u8], trunk: &Hop) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&dialog.0.to_be_bytes());
        context.update(instance.as_bytes());
        match trunk {
            Hop::Datagram { listener, peer } => {
                context.update(b"d");
                context.update(&listener.0.to_be_bytes());
                context.update(peer.to_string().as_bytes());
            }
            Hop::Flow(flow) => {
                context.update(b"f");
                context.update(&flow.0.to_be_bytes());
            }
            Hop::Trunk(key) => {
                context.update(b"t");
                context.update(key.transport.as_param().as_bytes());
                context.update(key.remote.to_string().as_bytes());
            }
        }
        context.update(call_id);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::FlowId;
    use super::*;

    #[test]
    fn a_token_is_worth_nothing_for_another_call_instance_or_hop() {
        let mint = Mint::new(ShardId(3), [9; 32]);
        let instance = InstanceId::mint(ShardId(3), [1; 16]);
        let other = InstanceId::mint(ShardId(3), [2; 16]);
        let hop = Hop::Flow(FlowId(5));
        let text = mint.token(DialogId(8), instance, b"call-1", &hop);
        let (shard, dialog, mac) = read(text.as_bytes()).expect("a token");

        assert_eq!((shard, dialog, text.len()), (ShardId(3), DialogId(8), TOKEN_TEXT_LEN));
        assert!(mint.verify(&mac, dialog, instance, b"call-1", &hop));
        assert!(!mint.verify(&mac, dialog, instance, b"call-2", &hop));
        assert!(!mint.verify(&mac, dialog, other, b"call-1", &hop));
        assert!(!mint.verify(&mac, dialog, instance, b"call-1", &Hop::Flow(FlowId(6))));
        assert!(!mint.verify(&mac, DialogId(9), instance, b"call-1", &hop));
    }
}
