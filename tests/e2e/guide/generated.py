"""What an app does, with a client that was generated from docs/openapi.json.

Started with one argument, a JSON file. Reads the name of a call on its standard input. Every answer is read twice where that
can be done: as the daemon gives it, and as a later version might, with words and members that the client does not know.
"""

import json
import ssl
import sys

import httpx

from reveille_client.api.calls import decline_call, show_call
from reveille_client.api.instances import (
    change_instance,
    erase_instance,
    hand_over_account,
    refresh_lease,
    show_instance,
    show_instance_data,
)
from reveille_client.client import AuthenticatedClient
from reveille_client.models import (
    CallDetails,
    Decline,
    DeclineReason,
    Erased,
    HandedOver,
    HandOver,
    Instance,
    InstanceData,
    Problem,
    Rectification,
)

TOMORROW = "of-tomorrow"
# Members that are a word of a list, wherever they stand.
WORDS = {
    "state", "reason", "event", "kind", "cause", "binding", "failure", "push_proof", "caller_in_push", "mode", "hand_over",
    "voicemail", "for", "provider", "trunk_sources", "contact_style", "algorithm", "password", "value", "suite", "platform",
}


def later(value):
    """An answer as a later version might give it."""
    if isinstance(value, list):
        return [later(item) for item in value]
    if not isinstance(value, dict):
        return value
    told = {name: TOMORROW if name in WORDS and isinstance(word, str) else later(word) for name, word in value.items()}
    if "type" in told:
        told["type"] = f"urn:reveille:problem:{TOMORROW}"
    return told | {"member_of_tomorrow": {"anything": [1]}}


class Tomorrow(httpx.BaseTransport):
    """The daemon as a later version: words, members and statuses that are not in the description."""

    def __init__(self, trust):
        self.today = httpx.HTTPTransport(verify=trust)

    def handle_request(self, request):
        answer = self.today.handle_request(request)
        told = json.loads(answer.read())
        status = 418 if answer.status_code >= 400 else answer.status_code
        # A map of counts is no object that has members.
        counts = told.get("held", {}).get("pushes_sent") if isinstance(told, dict) else None
        told = later(told)
        if counts is not None:
            told["held"]["pushes_sent"] = counts | {TOMORROW: 1}
        return httpx.Response(status, headers={"Content-Type": answer.headers["Content-Type"]}, content=json.dumps(told))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        orders = json.load(file)
    trust = ssl.create_default_context(cafile=orders["ca_file"])

    def client(token, transport=None):
        made = AuthenticatedClient(
            base_url=orders["url"], token=token, verify_ssl=trust, raise_on_unexpected_status=True
        )
        if transport:
            headers = {"Authorization": f"Bearer {token}"}
            made.set_httpx_client(httpx.Client(base_url=orders["url"], headers=headers, transport=transport))
        return made

    def expect(kind, answer):
        assert isinstance(answer, kind), answer
        return answer

    body = HandOver.from_dict(orders["body"])
    handed = expect(HandedOver, hand_over_account.sync(client=client(orders["app_key"]), body=body))
    assert handed.registration.state == "registered" and handed.tenant == "acme", handed
    # Once more, as if the answer had been lost.
    handed = expect(HandedOver, hand_over_account.sync(client=client(orders["app_key"]), body=body))
    name, today, tomorrow = handed.instance, client(handed.token), client(handed.token, Tomorrow(trust))

    assert expect(Instance, refresh_lease.sync(name, client=today)).lease_ends >= handed.lease_ends
    change = Rectification.from_dict({"mode": "always", "push": orders["body"]["device"]["push"]})
    expect(Instance, change_instance.sync(name, client=today, body=change))
    assert expect(InstanceData, show_instance_data.sync(name, client=today)).mode == "always"
    assert expect(InstanceData, show_instance_data.sync(name, client=tomorrow)).mode == TOMORROW
    assert expect(Instance, show_instance.sync(name, client=tomorrow)).registration.state == TOMORROW
    print("handed over")

    call = sys.stdin.readline().strip()
    shown = expect(CallDetails, show_call.sync(name, call, client=today))
    assert shown.state == "waking" and shown.story[0].event == "invited", shown
    shown = expect(CallDetails, show_call.sync(name, call, client=tomorrow))
    assert shown.state == TOMORROW and {step.event for step in shown.story} == {TOMORROW}, shown
    declined = expect(CallDetails, decline_call.sync(name, call, client=today, body=Decline(DeclineReason.BUSY)))
    assert (declined.state, declined.reason) == ("ended", "declined"), declined

    stranger = client("a-wrong-token")
    problem = expect(Problem, show_instance.sync(name, client=stranger))
    assert problem.type_ == "urn:reveille:problem:not-found", problem
    problem = expect(Problem, show_instance.sync(name, client=client("a-wrong-token", Tomorrow(trust))))
    assert problem.type_ == f"urn:reveille:problem:{TOMORROW}", problem

    receipt = expect(Erased, erase_instance.sync(name, client=today)).receipt
    assert receipt.instance == name
    problem = expect(Problem, show_instance.sync(name, client=today))
    assert problem.cause == "deleted" and problem.receipt.instance == name, problem
    assert expect(Problem, show_instance.sync(name, client=tomorrow)).cause == TOMORROW
    print("erased")


main()
