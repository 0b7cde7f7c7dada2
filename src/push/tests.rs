//! The clients against the strict stand-ins.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::{self, Now};
use crate::engine::ids::{CallUuid, InstanceId, ShardId, WakeId};
use crate::engine::input::PushPurpose;
use crate::engine::output::{PushJob, WakeKind};
use crate::engine::policy::Provider;

pub(crate) fn job(kind: WakeKind) -> PushJob {
    let Now { boot, wall } = clock::now();
    PushJob {
        wake: WakeId(1),
        tenant: Arc::from("acme"),
        provider: Provider::Apns,
        app: "com.example.phone".to_owned(),
        token: "0a1b".repeat(16),
        purpose: if kind == WakeKind::Call { PushPurpose::Call } else { PushPurpose::Other },
        kind,
        call: Some(CallUuid(Uuid::from_u128(7))),
        instance: InstanceId::mint(ShardId(0), [7; 16]),
        expires_at: wall + Duration::from_secs(45),
        deadline: boot + Duration::from_secs(45),
        attach: "sip:edge.example.net:5061;transport=tls".to_owned(),
        caller: None,
    }
}
