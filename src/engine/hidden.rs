//! Types that hold addresses and names of people or their PBXs: `Debug` for them tells the type and nothing of what is in it.
//!
//! They need one, since they stand in what is compared and derived; a log line or a panic that shows one shows nobody.

use std::fmt;

use super::account::TrunkHost;
use super::input::Located;
use super::output::{DestinationKey, Hop, KeptContact, TlsIdentity, TrunkKey};

macro_rules! tells_its_type_only {
    ($($hidden:ident),+) => {$(
        impl fmt::Debug for $hidden {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.debug_struct(stringify!($hidden)).finish_non_exhaustive()
            }
        }
    )+};
}

tells_its_type_only!(TrunkHost, Located, DestinationKey, Hop, KeptContact, TlsIdentity, TrunkKey);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::engine::account::{Account, TrunkUri};
    use crate::engine::aor::Aor;
    use crate::engine::device::Device;
    use crate::engine::ids::{Capability, InstanceId, ListenerId};
    use crate::engine::input::{Arrival, Command, HandOver, Input, PushTarget, Rectification, TokenHash};
    use crate::engine::instance::Instance;
    use crate::engine::output::{
        Answer, AttachView, Caller, DataView, ForegroundView, HandedOver, InstanceView, Output, PushJob, RecordJob,
    };
    use crate::engine::push_token::PushToken;
    use crate::engine::register::Identity;
    use crate::sip::address::Address;
    use crate::sip::uri::Uri;
    use crate::sip::via::Via;
    use crate::sip::{Message, Transport};

    /// Does not compile if `$personal` implements `$forbidden`: the call would be ambiguous.
    macro_rules! assert_not {
        ($forbidden:path: $($personal:ty),+ $(,)?) => {{
            trait Unambiguous<Marker> {
                fn holds() {}
            }
            impl<T: ?Sized> Unambiguous<()> for T {}
            impl<T: ?Sized + $forbidden> Unambiguous<u8> for T {}
            $(<$personal as Unambiguous<_>>::holds();)+
        }};
    }

    #[test]
    fn what_belongs_to_people_can_neither_be_printed_nor_stored() {
        assert_not!(fmt::Debug: Account, TrunkUri, Aor, Device, Instance, Identity, Arrival, Command, HandOver, Input,
            PushTarget, PushToken, Rectification, TokenHash, Answer, AttachView, Caller, DataView, ForegroundView, HandedOver,
            InstanceView, Output, PushJob, RecordJob);
        assert_not!(fmt::Display: Account, TrunkUri, TrunkHost, Aor, Device, Instance, Identity, Arrival, HandOver, Hop,
            PushTarget, PushToken, TokenHash, Caller, DataView, Located, DestinationKey, TrunkKey, Message, Uri<'static>,
            Address<'static>);
        assert_not!(serde::Serialize: Account, TrunkUri, TrunkHost, Aor, Device, Instance, Identity, Arrival, HandOver,
            Hop, PushTarget, PushToken, TokenHash, Caller, DataView, Located, DestinationKey, TrunkKey, PushJob, Message,
            InstanceId, Capability);
    }

    #[test]
    fn what_must_be_comparable_shows_nothing_of_itself() {
        let remote: SocketAddr = "198.51.100.77:5077".parse().expect("an address");
        let identity = Some(TlsIdentity { host: "pbx.alice.test".to_owned(), spki_sha256: None });
        let (transport, listener) = (Transport::Tls, ListenerId(0));
        let trunk = TrunkKey { transport, remote, listener, identity: identity.clone() };
        let uri = Uri::parse(b"sip:alice@pbx.alice.test").expect("a URI");
        let address = Address::parse(b"\"alice\" <sip:alice@pbx.alice.test>").expect("an address");
        let request = "MESSAGE sip:alice@pbx.alice.test SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.77:5077;branch=z9hG4bKalice\r\n\
            From: <sip:alice@pbx.alice.test>;tag=1\r\nTo: <sip:alice@pbx.alice.test>\r\nCall-ID: alice\r\n\
            CSeq: 1 MESSAGE\r\nContent-Length: 5\r\n\r\nalice";
        let message = Message::parse_datagram(request.as_bytes().to_vec()).expect("a request");
        let via = Via::parse(b"SIP/2.0/UDP 198.51.100.77:5077;branch=z9hG4bKalice").expect("a Via");
        let shown = [
            format!("{:?}", TrunkHost::Name("pbx.alice.test".to_owned())),
            format!("{:?}", Located { transport, address: remote }),
            format!("{:?}", DestinationKey { transport, address: remote }),
            format!(
                "{:?} {:?}",
                Hop::Datagram { listener, peer: remote },
                Hop::Trunk(std::sync::Arc::new(trunk.clone()))
            ),
            format!("{identity:?} {trunk:?} {uri:?} {address:?} {message:?} {via:?}"),
        ];
        for text in shown {
            assert!(!text.contains("alice") && !text.contains("198.51") && !text.contains("5077"), "{text}");
        }
    }
}
