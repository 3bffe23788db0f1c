"""Several pools that share what they learn: how it is merged, and that they come to the same in whatever order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.credentials.credential import Credential
from k2think.credentials.health import Health
from k2think.credentials.keeper import Keeper
from k2think.credentials.merging import merge
from k2think.credentials.persistence import KEY
from k2think.credentials.pool import BY_HAND, Lease, Pool
from k2think.credentials.renewals import Renewals
from k2think.credentials.rotation import State
from k2think.credentials.sharing import STRANGE_FOR, Sharing
from k2think.credentials.worker import Worker
from k2think.errors import CredentialRejected, NoCredential, QuotaExceeded
from k2think.storage.base import StorageUnusable
from k2think.storage.memory import MemoryStorage

NAMES = "abcd"
TOKENS = tuple(Credential(name, f"secret-{name}") for name in NAMES)
A, B, C, D = TOKENS
REJECTED = CredentialRejected("no")


class NoJitter(random.Random):
    """Cooldowns are then as long as they say."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


class Process:
    """A pool of one of several processes, and its sharing, step by step or in one."""

    def __init__(
        self, storage: MemoryStorage, tokens: tuple[Credential, ...] = TOKENS, *, renewals: Renewals | None = None
    ) -> None:
        self.pool = Pool(tokens, max_failures=3, randomness=NoJitter())
        self.keeper = Keeper(self.pool, renewals=renewals)
        self.sharing = Sharing(storage, self.keeper)
        self.sharing.restore()

    def lease(self, credential: Credential) -> Lease:
        """A request that has had this token for a while, whatever has become of it."""
        member = self.pool.of(credential.id)
        assert member is not None
        return Lease(member)

    def reject(self, credential: Credential, times: int = 1) -> None:
        for _ in range(times):
            self.keeper.failed(self.lease(credential), REJECTED)

    def limit(self, credential: Credential, seconds: float | None = 60) -> None:
        self.keeper.failed(self.lease(credential), QuotaExceeded("slow", retry_after=seconds))

    def succeed(self, credential: Credential) -> None:
        self.keeper.succeeded(self.lease(credential))

    def by_hand(self, verb: Callable[[int], None], credential: Credential) -> None:
        verb(NAMES.index(credential.id))
        self.keeper.changed()

    def sync(self) -> None:
        assert asyncio.run(self.sharing.sync())

    def states(self) -> list[State]:
        return [member.state for member in self.pool.snapshot(time.time())]

    def told(self) -> dict[str, Health]:
        return {health.id: health for health in self.pool.health()}


def settle(*processes: Process) -> None:
    for _ in range(3):
        for process in processes:
            process.sync()


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


# The merge

counts = st.integers(0, 4)
healths = st.builds(
    Health,
    id=st.just("a"),
    failures=counts,
    limits=counts,
    until=st.sampled_from([0.0, 10.0, 20.0]),
    disabled=st.sampled_from(["", "rejected", BY_HAND]),
    error=st.sampled_from([None, "x", "y"]),
    failing=st.booleans(),
)
tokens = st.dictionaries(st.sampled_from(NAMES), healths).map(
    lambda found: {key: msgspec.structs.replace(health, id=key) for key, health in found.items()}
)


def ill(health: dict[str, Health]) -> dict[str, Health]:
    return {key: one for key, one in health.items() if one != Health(key)}


@given(base=tokens, changed=tokens)
def test_a_side_that_has_changed_nothing_yields(base: dict[str, Health], changed: dict[str, Health]) -> None:
    assert merge(base, base, changed) == ill(changed)
    assert merge(base, changed, base) == ill(changed)


@given(base=tokens, mine=tokens, theirs=tokens)
def test_changes_of_different_tokens_are_all_made_whoever_comes_first(
    base: dict[str, Health], mine: dict[str, Health], theirs: dict[str, Health]
) -> None:
    def only(changes: dict[str, Health], names: str) -> dict[str, Health]:
        kept = {key: one for key, one in base.items() if key not in names}
        return kept | {key: one for key, one in changes.items() if key in names}

    first, second = only(mine, "ab"), only(theirs, "cd")
    merged = merge(base, first, second)
    assert merged == merge(base, second, first)
    assert all(merged.get(key) == ill(first).get(key) for key in "ab")
    assert all(merged.get(key) == ill(second).get(key) for key in "cd")


def test_of_two_changes_of_one_token_the_counts_add_up_and_the_worse_counts() -> None:
    def merged(base: Health, mine: Health, theirs: Health) -> Health | None:
        return merge({"a": base}, {"a": mine}, {"a": theirs}).get("a")

    assert merged(Health("a"), Health("a", 1, 2, 10), Health("a", 1, 1, 20)) == Health("a", 2, 3, 20)
    assert merged(Health("a", 2), Health("a"), Health("a", 3)) == Health("a", 1)
    assert merged(Health("a", 2), Health("a"), Health("a")) is None
    off = Health("a", 3, disabled="rejected")
    by_hand = Health("a", 3, disabled=BY_HAND)
    assert merged(Health("a"), off, by_hand) == Health("a", 6, disabled=BY_HAND)
    assert merged(off, Health("a"), by_hand) == Health("a", disabled=BY_HAND)
    assert merged(off, Health("a"), Health("a", 4, disabled="rejected")) == Health("a", 1)
    assert merged(Health("a", 1, until=20), Health("a"), Health("a", 2, until=20)) == Health("a", 1)


# Pools that share


def test_rejections_add_up_wherever_they_are_met(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A, 2)
    other.reject(A)
    settle(one, other)
    assert one.states() == other.states() == ["disabled", "active", "active", "active"]
    assert one.pool.member(0).reason == other.pool.member(0).reason == "rejected 3 times in a row"
    with pytest.raises(NoCredential):
        other.pool.lease(0, {"b", "c", "d"})


def test_rests_and_what_a_hand_does_reach_the_others_and_are_lifted_for_them(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    one.limit(A)
    one.by_hand(one.pool.disable, B)
    one.reject(C, 3)
    settle(one, other)
    assert other.states() == ["cooling", "disabled", "disabled", "active"]
    assert other.pool.member(0).available_at == one.pool.member(0).available_at
    other.by_hand(other.pool.enable, B)
    other.by_hand(other.pool.reset, A)
    other.pool.reset_all()
    other.keeper.changed()
    settle(one, other)
    assert one.states() == ["active"] * 4
    assert [one.pool.lease(0, set(NAMES) - {name}).credential.id for name in NAMES] == list(NAMES)


def test_a_success_elsewhere_clears_what_it_clears(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A, 2)
    one.reject(B)
    settle(one, other)
    assert (other.pool.member(0).failures, other.pool.consecutive_failures) == (2, 2)
    other.succeed(A)
    one.reject(C)
    settle(one, other)
    assert [member.failures for member in one.pool.snapshot(0)] == [0, 1, 1, 0]
    assert one.pool.consecutive_failures == other.pool.consecutive_failures == 1


def test_what_happens_during_an_exchange_is_not_lost(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A)
    settle(one)
    other.reject(A)
    mine = other.sharing._mine()
    merged = other.sharing._exchange(mine)
    other.reject(A)  # before what the exchange gave is taken up
    other.sharing._settle(merge(mine, other.sharing._mine(), merged))
    other.sharing._told = merged
    assert other.pool.member(0).failures == 3
    settle(one, other)
    assert one.told() == other.told()
    assert one.states()[0] == "disabled"


def test_an_exchange_that_nobody_waited_for_counts_once(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    other.reject(A)
    settle(other)
    one.reject(A)
    one.sharing._exchange(one.sharing._mine())
    one.sharing.save()
    settle(other, one)
    assert (one.pool.member(0).failures, other.pool.member(0).failures) == (2, 2)


def test_one_that_is_killed_loses_only_what_it_had_not_put(storage: MemoryStorage) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A)
    settle(one)
    one.reject(A)
    successor = Process(storage)
    assert successor.pool.member(0).failures == 1
    successor.reject(A)
    settle(successor, other)
    assert other.pool.member(0).failures == 2


def test_who_has_read_another_token_file_changes_nothing_for_tokens_that_it_does_not_have(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Process(storage), Process(storage, (A, B))
    one.reject(C, 3)
    settle(one, other)
    other.reject(A)
    settle(other, one)
    assert one.states() == ["active", "active", "disabled", "active"]
    other.pool.replace((C, A))
    other.keeper.changed()
    settle(other, one)
    assert other.states() == ["disabled", "active"]
    assert one.states()[2] == "disabled"
    for process in (one, other):
        process.pool.replace((A, B))
        process.keeper.changed()
    settle(other, one)
    later = time.monotonic() + STRANGE_FOR + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    other.succeed(A)
    settle(other, one)
    assert storage.get(KEY) == b"[]"


@pytest.mark.parametrize("value", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_store_that_has_lost_its_memory_makes_no_token_well(storage: MemoryStorage, value: bytes | None) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A, 3)
    settle(one, other)
    storage.delete(KEY)
    if value is not None:
        storage.put(KEY, value)
    settle(other, one)
    assert one.states()[0] == other.states()[0] == "disabled"
    assert Process(storage).states()[0] == "disabled"


def test_a_store_that_fails_loses_nothing(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A)
    with monkeypatch.context() as broken:

        def full(key: str, value: bytes) -> None:
            raise StorageUnusable("The disk is full.")

        broken.setattr(storage, "put", full)
        assert not asyncio.run(one.sharing.sync())
    settle(one, other)
    assert other.pool.member(0).failures == 1


def test_nothing_is_written_or_decoded_where_nothing_is_new(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Process(storage), Process(storage)
    one.reject(A)
    settle(one, other)
    exchanges = 0

    def counted(mine: dict[str, Health]) -> dict[str, Health]:
        nonlocal exchanges
        exchanges += 1
        return mine

    monkeypatch.setattr(one.sharing, "_exchange", counted)
    settle(one, other)
    assert exchanges == 0
    other.reject(B)
    settle(other)
    one.sync()
    assert exchanges == 1


def test_who_makes_the_tokens_hears_of_rejections_elsewhere_and_nobody_else_does(storage: MemoryStorage) -> None:
    leads, follows = Renewals(), Renewals()
    follows.made_here = False
    leader, follower = Process(storage, renewals=leads), Process(storage, renewals=follows)
    other = Process(storage)
    other.reject(A)
    settle(other, leader, follower)
    assert leads.taken() == (None, (A,))
    other.reject(B)
    settle(other, leader, follower)
    assert leads.taken() == ("consecutive failures", (B,))
    settle(other, leader, follower)
    assert leads.taken() == (None, ())
    assert follows.taken() == (None, ())
    follower.keeper.review()
    assert follows.taken() == ("consecutive failures", (A, B))


events = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["reject", "reject", "limit", "succeed", "disable", "enable", "reset", "sync", "sync"]),
        st.sampled_from(TOKENS),
    ),
    max_size=30,
)


@given(events=events)
def test_pools_come_to_the_same_whatever_happens_in_whatever_order(events: list[tuple[int, str, Credential]]) -> None:
    storage = MemoryStorage()
    processes = [Process(storage) for _ in range(3)]
    for number, what, credential in events:
        process = processes[number]
        match what:
            case "sync":
                process.sync()
            case "disable" | "enable" | "reset":
                process.by_hand(getattr(process.pool, what), credential)
            case _:
                getattr(process, what)(credential)
    settle(*processes)
    assert processes[0].told() == processes[1].told() == processes[2].told()
    assert processes[0].states() == processes[1].states() == processes[2].states()
    assert msgspec.json.decode(storage.get(KEY) or b"[]", type=list[Health]) == sorted(
        processes[0].pool.health(), key=lambda health: health.id
    )


@given(share=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(TOKENS)), max_size=20))
def test_rejections_are_counted_as_one_process_would_count_them(share: list[tuple[int, Credential]]) -> None:
    storage = MemoryStorage()
    processes = [Process(storage), Process(storage)]
    alone = Process(MemoryStorage())
    for number, credential in share:
        processes[number].reject(credential)
        alone.reject(credential)
    settle(*processes)
    assert processes[0].states() == processes[1].states() == alone.states()
    assert [member.failures for member in processes[0].pool.snapshot(0)] == [
        member.failures for member in alone.pool.snapshot(0)
    ]


# What is shared out


@given(of=st.integers(1, 9), each=st.integers(1, 12), number=st.integers(0, 12))
def test_places_are_shared_out_without_remainder_and_each_worker_gets_some(of: int, each: int, number: int) -> None:
    hands = [Worker(worker, of).hand(each, number) for worker in range(of)]
    if number * each >= of:
        assert [sum(places) for places in zip(*hands, strict=True)] == [each] * number
        assert max(map(sum, hands)) - min(map(sum, hands)) <= 1
    elif number:
        assert [sum(hand) for hand in hands] == [1] * of
    shares = [Worker(worker, of).share(each) for worker in range(of)]
    assert sum(shares) == max(each, of)


def pool_of(worker: Worker, cap: int, names: str = NAMES) -> Pool:
    return Pool([TOKENS[NAMES.index(name)] for name in names], max_failures=3, max_concurrency=cap, worker=worker)


def lend_all(pool: Pool) -> list[Lease]:
    leases = []
    while True:
        try:
            leases.append(pool.lease(0))
        except NoCredential:
            return leases


@pytest.mark.parametrize(("of", "cap"), [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_workers_together_lend_each_token_as_often_as_it_may_be(of: int, cap: int) -> None:
    pools = [pool_of(Worker(number, of), cap) for number in range(of)]
    lent = Counter(lease.credential.id for pool in pools for lease in lend_all(pool))
    assert lent == dict.fromkeys(NAMES, cap)


def test_what_can_be_used_is_dealt_anew_when_that_changes() -> None:
    pools = [pool_of(Worker(number, 2), 1) for number in range(2)]
    for pool in pools:
        pool.disable(0)
        pool.disable(2)
    lent = {pool: lend_all(pool) for pool in pools}
    assert [[lease.credential.id for lease in leases] for leases in lent.values()] == [["b"], ["d"]]
    for pool, leases in lent.items():
        pool.enable(0)
        pool.enable(2)
        for lease in leases:
            pool.release(lease)
    assert Counter(lease.credential.id for pool in pools for lease in lend_all(pool)) == dict.fromkeys(NAMES, 1)


def test_a_worker_for_which_nothing_is_left_serves_all_the_same() -> None:
    pools = [pool_of(Worker(number, 3), 1, "ab") for number in range(3)]
    assert [[lease.credential.id for lease in lend_all(pool)] for pool in pools] == [["a"], ["b"], ["a"]]


def test_workers_do_not_walk_in_step() -> None:
    first = [pool_of(Worker(number, 2), 0).lease(0).credential.id for number in range(2)]
    assert first == ["a", "c"]
