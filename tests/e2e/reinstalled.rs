//! An app that is installed anew is another device to the daemon, with the push token of the one before: it takes its place.

use serde_json::json;

use crate::daemon::HandOver;
use crate::phones::{CallerManners, Make};
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{Transport, World};

/// More often than an account may have devices.
const TIMES: usize = 7;

#[test]
fn an_app_that_was_reinstalled_rings_once() {
    let world = World::new("reinstalled");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let mut installed = setting.alice.clone();
    for nth in 1..=TIMES {
        let device = format!("alice-installed-anew-{nth}");
        let more = json!({ "device": { "push": setting.push.targets("alice") } });
        let hand_over = HandOver { user: "alice", device: &device, trunk: Transport::Udp, more };
        let next = setting.daemon.hand_over_from(&setting.kamailio, &setting.push, &hand_over);

        let former = setting.daemon.status(&installed);
        assert_eq!(former.status, 410, "{former:?}");
        assert_eq!(former.json()["cause"], "replaced", "{former:?}");
        installed = next;
    }
    assert_eq!(setting.kamailio.bindings("alice").len(), 1);

    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    let wake = setting.push.wait_for_call(1);
    assert_eq!(wake.word("instance"), installed.id);
    let mut phone = setting.wake_phone_of(&installed, Make::Pjsip, Transport::Tls);
    phone.wait_ringing(&id);
    phone.answer();
    let heard = phone.trace.of_call(&id);
    heard.request("ACK");
    caller.hang_up();
    heard.response(200, "BYE");
    setting.wait_nothing_held();

    assert_eq!(phone.trace.distinct("INVITE").len(), 1, "it rang once");
    let told: Vec<_> = setting.push.accepted().iter().map(|push| push.word("kind").to_owned()).collect();
    assert_eq!(told, ["call"], "the phone is told of nothing else");
}
