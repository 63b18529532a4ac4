# tidy: table, one entry a run
"""What is run: every model with its bounds, and every mutant with the claim that it must break.

A case is a configuration of `cfg/` with some constants changed. A mutant leaves out rules of a
model (see Rules.tla) and names the one claim that is checked then, and must be found broken:
so a mutant proves the rule necessary and the claim not vacuous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from tla.model import Config, read_config

FOLDER = Path(__file__).parent


def base_config(module: str) -> Config:
    """The module's own configuration, which cases and mutants start from."""
    return read_config(FOLDER / "cfg" / f"{module}.cfg", module)


class Tier(Enum):
    """Each includes the ones before it. 60 seconds, 8 minutes, an hour."""

    SMOKE = "smoke"
    PR = "pr"
    NIGHTLY = "nightly"


@dataclass(frozen=True, slots=True)
class Case:
    """A model that must hold. Behaviours (`properties`) need TLC; so do large bounds."""

    name: str
    module: str
    tier: Tier
    changes: Mapping[str, Any] = field(default_factory=dict)
    liveness: tuple[str, ...] = ()
    """If any: these are checked, with fairness, and nothing else."""
    path: Path | None = None
    """A configuration that is not ours; ours are in `cfg`."""

    def config(self) -> Config:
        config = read_config(self.path, self.module) if self.path else base_config(self.module)
        config = config.with_constants(**self.changes)
        return config.about_behaviours(self.liveness) if self.liveness else config

    @property
    def needs_tlc(self) -> bool:
        return bool(self.liveness) or self.tier is not Tier.SMOKE


@dataclass(frozen=True, slots=True)
class Mutant:
    """A model without some of its rules, which must break `claim`.

    `unfair`: nothing is left out but fairness, and the claim is about behaviours.
    """

    module: str
    broken: tuple[str, ...]
    claim: str
    origin: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    unfair: bool = False
    where: str = ""
    """Tells apart two mutants that differ in their bounds only."""

    @property
    def name(self) -> str:
        what = "no fairness" if self.unfair else " + ".join(self.broken)
        bounds = f" ({self.where})" if self.where else ""
        return f"{self.module} without {what}: {self.claim}{bounds}"

    @property
    def needs_tlc(self) -> bool:
        return self.unfair

    def config(self) -> Config:
        config = base_config(self.module)
        config = config.with_constants(**{**self.changes, "Broken": frozenset(self.broken)})
        if self.unfair:
            return config.about_behaviours((self.claim,), specification=config.specification)
        return config.about(self.claim)


R3 = frozenset({1, 2, 3})
CALM: Mapping[str, Any] = {"MaxRestarts": 0, "MaxWipes": 0}
EPOCHS: Mapping[str, Any] = {**CALM, "MaxEntries": 3, "MaxEpoch": 3}
SLOW: Mapping[str, Any] = {"SlowDisk": True, "MaxRestarts": 1, "MaxTerm": 1}

CASES = (
    Case("CommitLog", "CommitLog", Tier.SMOKE),
    Case("MetaLog", "MetaLog", Tier.SMOKE),
    Case("Isr", "Isr", Tier.SMOKE),
    Case("Isr, late fetches", "Isr", Tier.SMOKE, {"MaxLate": 1, "MaxEpoch": 1, "MaxWipes": 0}),
    Case("Isr, three epochs", "Isr", Tier.SMOKE, {**EPOCHS, "MaxRecords": 2}),
    Case("IsrValues", "IsrValues", Tier.SMOKE),
    Case("IsrDisk, ack", "IsrDisk", Tier.SMOKE),
    Case("IsrDisk, ack, damage", "IsrDisk", Tier.SMOKE, {"MaxDamages": 1, "MaxCrashes": 1}),
    Case("IsrDisk, async", "IsrDisk", Tier.SMOKE, {"Flush": "async", "MaxCrashes": 1}),
    Case("Idempotent", "Idempotent", Tier.SMOKE),
    Case("Idempotent, forgetting", "Idempotent", Tier.SMOKE, {"MaxForgets": 1}),
    Case("MetaRaft, in turns", "MetaRaft", Tier.SMOKE, {"InTurns": True}),
    Case("MetaRaft, slow disks", "MetaRaft", Tier.SMOKE, {**SLOW, "MaxLog": 1}),
    Case("MetaRaft, pre-vote", "MetaRaft", Tier.SMOKE,
         {"Deafness": True, "MaxTerm": 1, "MaxLog": 1}),
    Case("MetaRaft, lost disk", "MetaRaft", Tier.SMOKE, {"MaxWipes": 1, "MaxLog": 1}),
    # -- pr ----------------------------------------------------------------------------------------
    Case("Isr converges", "Isr", Tier.PR, {"MaxEntries": 3, "MaxWipes": 0}, ("L1_Converges",)),
    Case("IsrDisk converges", "IsrDisk", Tier.PR, {"MaxCrashes": 1}, ("L1_Converges",)),
    Case("MetaRaft commits", "MetaRaft", Tier.PR, {"MaxTerm": 1, "MaxLog": 2},
         ("L1_LeadersCommitOrGo",)),
    Case("Idempotent ends", "Idempotent", Tier.PR, {}, ("L1_BatchesEnd",)),
    Case("Isr, three replicas", "Isr", Tier.PR,
         {**CALM, "Replicas": R3, "MinIsr": 2, "MaxEntries": 3, "MaxEpoch": 3}),
    Case("IsrDisk, two records", "IsrDisk", Tier.PR, {"MaxRecords": 2}),
    Case("IsrDisk, async, two crashes", "IsrDisk", Tier.PR, {"Flush": "async"}),
    Case("Idempotent, more of all", "Idempotent", Tier.PR,
         {"InFlight": 3, "Window": 3, "MaxRecords": 4, "MaxChanges": 2}),
    Case("MetaRaft", "MetaRaft", Tier.PR),
    Case("MetaRaft, figure 8", "MetaRaft", Tier.PR, {"InTurns": True, "MaxTerm": 4}),
    # -- nightly -----------------------------------------------------------------------------------
    Case("Isr, two records", "Isr", Tier.NIGHTLY, {"MaxRecords": 2, "MaxEpoch": 3}),
    Case("IsrValues, four entries", "IsrValues", Tier.NIGHTLY, {"MaxEntries": 4}),
    Case("IsrDisk, three replicas", "IsrDisk", Tier.NIGHTLY,
         {"Replicas": R3, "MaxCrashes": 1, "MaxFences": 1}),
    Case("Idempotent, three changes", "Idempotent", Tier.NIGHTLY,
         {"InFlight": 3, "Window": 3, "MaxRecords": 4, "MaxChanges": 3}),
    Case("MetaRaft, slow disks, two entries", "MetaRaft", Tier.NIGHTLY, {**SLOW, "MaxLog": 2}),
)  # fmt: skip

MUTANTS = (
    Mutant("CommitLog", ("append-only",), "G4_SeenStays", "a read that is taken back"),
    Mutant("CommitLog", ("append-only",), "G1_AckedStays", "a lost write"),
    Mutant("CommitLog", ("ack-what-is-committed",), "G1_AckedStays", "acks=1 told as acks=all"),
    Mutant("CommitLog", ("epochs-in-order",), "G3_EpochsInOrder", "KAFKA-13790"),
    Mutant("MetaLog", ("apply-what-is-committed",), "G7_AppliedIsCommitted", "KAFKA-9672"),
    # -- Isr -------------------------------------------------------------------------------------
    Mutant("Isr", ("truncate-by-epochs",), "G1_CommittedIsInIsr", "truncation to the HW, KIP-101",
           {"MaxWipes": 0}),
    Mutant("Isr", ("compare-epochs",), "G1_CommittedIsInIsr", "KIP-279, offsets only", EPOCHS),
    Mutant("Isr", ("cut-by-own-epochs", "ask-again-after-a-cut"), "G3_LogsMatch", "KIP-279",
           {**EPOCHS, "MaxRecords": 2}),
    Mutant("Isr", ("fetch-in-same-epoch",), "G1_CommittedIsInIsr", "unfenced fetch, KIP-320",
           {**EPOCHS, "Replicas": R3}),
    Mutant("Isr", ("fetch-of-present-life",), "G1_CommittedIsInIsr", "KIP-903",
           {"MaxLate": 1, "MaxEpoch": 1}),
    Mutant("Isr", ("forget-old-lives",), "G1_CommittedIsInIsr", "KIP-903", {"MaxEpoch": 1}),
    Mutant("Isr", ("alter-names-lives",), "G1_CommittedIsInIsr", "KIP-903, KAFKA-14372",
           {"MaxEntries": 5, "MaxEpoch": 1}),
    Mutant("Isr", ("alter-compares-version",), "G2_MaximalIsrCovers", "KIP-497", CALM),
    Mutant("Isr", ("pending-until-decided",), "G2_MaximalIsrCovers", "KAFKA-13916", CALM),
    Mutant("Isr", ("removal-counts-when-committed",), "G2_MaximalIsrCovers", "KIP-497", CALM),
    Mutant("Isr", ("addition-counts-when-proposed",), "G2_MaximalIsrCovers", "KIP-497", CALM),
    Mutant("Isr", ("addition-counts-when-proposed",), "G1_CommittedIsInIsr", "KIP-497", CALM),
    Mutant("Isr", ("join-at-high-watermark",), "G1_CommittedIsInIsr", "KIP-497", CALM),
    Mutant("Isr", ("join-at-epoch-start",), "G1_CommittedIsInIsr", "KAFKA-7128"),
    Mutant("Isr", ("no-commit-below-min-isr",), "G2_CommittedByMinIsr", "KIP-966", {"MinIsr": 2}),
    Mutant("Isr", ("watermark-within-log",), "G4_WatermarkIsInLog", "KAFKA-14704", CALM),
    Mutant("Isr", ("elect-from-isr",), "G1_CommittedIsInIsr", "unclean election", CALM),
    Mutant("Isr", ("elect-from-isr",), "G3_WatermarksAgree", "unclean election", CALM),
    Mutant("Isr", ("elect-from-isr",), "G4_RefinesCommitLog", "unclean election",
           {**CALM, "MaxRecords": 2}),
    Mutant("Isr", ("last-member-stays",), "G1_IsrHasMember", "KIP-966", CALM),
    Mutant("Isr", ("new-leader-new-epoch",), "G6_OneLeaderPerEpoch", "leader epochs", CALM),
    Mutant("Isr", ("registration-ends-leadership",), "G1_CommittedIsInIsr",
           "re-registration without a new leader epoch"),
    Mutant("Isr", ("role-after-registration",), "G1_CommittedIsInIsr",
           "a role before the own registration"),
    Mutant("Isr", (), "L1_Converges", "nothing heals",
           {"MaxEntries": 3, "MaxWipes": 0}, unfair=True),
    Mutant("IsrValues", ("registration-ends-leadership",), "G3_EpochNamesRecord",
           "two incarnations write one epoch"),
    Mutant("IsrValues", ("role-after-registration",), "G3_EpochNamesRecord",
           "two incarnations write one epoch"),
    Mutant("IsrValues", ("only-steps-of-isr",), "G3_RefinesIsr", "a write behind the log's back"),
    # -- IsrDisk ---------------------------------------------------------------------------------
    Mutant("IsrDisk", ("only-synced-counts",), "G1_CommittedIsHeld", "ack before sync"),
    Mutant("IsrDisk", ("only-synced-counts",), "G1_CommittedIsHeld", "ack before sync",
           {"MinIsr": 1}, where="min ISR 1"),
    Mutant("IsrDisk", ("sync-after-recovery",), "G1_SyncedIsOnDisk",
           "recovered counted as durable"),
    Mutant("IsrDisk", ("sync-after-recovery",), "G1_CommittedIsHeld",
           "recovered counted as durable"),
    Mutant("IsrDisk", ("sync-of-this-generation",), "G1_SyncedIsOnDisk",
           "a late Synced of an old generation"),
    Mutant("IsrDisk", ("cut-lowers-synced-end",), "G1_SyncedIsOnDisk", "protocol rule 1.2"),
    Mutant("IsrDisk", ("recovery-checks-epochs",), "G3_EpochsInOrder", "protocol rule 1.7",
           {"MaxRecords": 2, "MaxEpoch": 2, "MaxCrashes": 1}),
    Mutant("IsrDisk", ("damage-is-reported",), "G1_CommittedIsHeld", "damage not reported",
           {"MaxDamages": 1}),
    Mutant("IsrDisk", ("damage-ends-the-epoch",), "G1_CommittedIsHeld",
           "a damaged replica is taken back as it was counted", {"MaxDamages": 1}),
    Mutant("IsrDisk", ("elr-only-below-min-isr",), "G1_CommittedIsHeld", "KIP-966", {"MinIsr": 1}),
    Mutant("IsrDisk", ("elr-only-below-min-isr",), "G3_WatermarksAgree", "KIP-966", {"MinIsr": 1}),
    Mutant("IsrDisk", ("elr-only-below-min-isr",), "G4_RefinesCommitLog", "KIP-966",
           {"MinIsr": 1, "MaxRecords": 2}),
    Mutant("IsrDisk", ("no-commit-below-min-isr",), "G1_CommittedIsHeld", "KIP-966"),
    Mutant("IsrDisk", ("unclean-may-stay",), "L1_LedWhenAllAreBack",
           "KIP-966: unclean is out of everything"),
    Mutant("IsrDisk", ("unclean-async-leaves",), "G1_CommittedIsHeld",
           "async, an unclean member stays", {"Flush": "async"}),
    Mutant("IsrDisk", ("forget-old-lives",), "G1_CommittedIsHeld", "KIP-903",
           {"Flush": "async", "MinIsr": 1}),
    Mutant("IsrDisk", ("watermark-within-counted",), "G4_WatermarkIsCounted",
           "a follower believes the leader's watermark", {"MinIsr": 1}),
    Mutant("IsrDisk", (), "L1_Converges", "nothing heals", {"MaxCrashes": 1}, unfair=True),
    # -- Idempotent ------------------------------------------------------------------------------
    Mutant("Idempotent", ("duplicates-are-recognised", "no-gaps"), "G5_NoDuplicate",
           "no idempotence"),
    Mutant("Idempotent", ("no-second-identity",), "G5_NoDuplicate", "KAFKA-14034"),
    Mutant("Idempotent", ("unknown-begins-at-zero",), "G5_InOrder", "KAFKA-14312"),
    Mutant("Idempotent", ("no-gaps",), "G5_InOrder", "KIP-98"),
    Mutant("Idempotent", ("answer-after-commit",), "G5_AckedIsThere", "a duplicate told too early"),
    Mutant("Idempotent", ("followers-note-too",), "G5_RetryIsRecognised", "KAFKA-6003"),
    Mutant("Idempotent", ("table-follows-truncation",), "G5_NextIsTaken", "KAFKA-5793"),
    Mutant("Idempotent", ("in-flight-from-the-oldest",), "G5_RetryIsRecognised",
           "found by this model"),
    Mutant("Idempotent", ("duplicates-are-recognised",), "G5_RetryIsRecognised", "KIP-98"),
    Mutant("Idempotent", ("forgotten-are-not-new",), "G5_NoDuplicate",
           "late retries after expiry", {"MaxForgets": 1}),
    Mutant("Idempotent", ("old-epochs-are-fenced",), "G6_OldEpochsAreFenced", "zombie producers"),
    Mutant("Idempotent", (), "L1_BatchesEnd", "nothing is delivered", unfair=True),
    Mutant("Idempotent", ("successor-has-committed",), "G4_CommittedStays", "unclean election"),
    # -- MetaRaft --------------------------------------------------------------------------------
    Mutant("MetaRaft", ("one-vote-a-term",), "G7_OneLeaderPerTerm", "paper 5.2"),
    Mutant("MetaRaft", ("one-vote-a-term",), "G7_LogsMatch", "paper 5.2"),
    Mutant("MetaRaft", ("vote-for-complete-logs",), "G7_LeaderComplete", "paper 5.4.1"),
    Mutant("MetaRaft", ("vote-for-complete-logs",), "G7_RefinesMetaLog", "paper 5.4.1"),
    Mutant("MetaRaft", ("refuse-lower-terms",), "G7_LeaderComplete", "rule (c)"),
    Mutant("MetaRaft", ("refuse-lower-terms",), "G7_CommittedAgrees", "rule (c)"),
    Mutant("MetaRaft", ("cut-on-conflict-only",), "G7_CommittedIsOnDisks", "rule (h)"),
    Mutant("MetaRaft", ("step-down-keeps-vote",), "G7_OneLeaderPerTerm", "rule (e)"),
    Mutant("MetaRaft", ("commit-own-term-only",), "G7_LeaderComplete", "figure 8",
           {"InTurns": True, "MaxTerm": 4}),
    Mutant("MetaRaft", ("disk-ids",), "G7_OneLeaderPerTerm", "a wiped voter",
           {"MaxWipes": 1}),
    Mutant("MetaRaft", ("vote-after-sync",), "G7_OneLeaderPerTerm", "vote not persisted", SLOW),
    Mutant("MetaRaft", ("request-after-sync",), "G7_LeaderComplete", "found by this model",
           {**SLOW, "MaxLog": 2}),
    Mutant("MetaRaft", ("confirm-after-sync",), "G7_CommittedIsOnDisks", "entries not persisted",
           {**SLOW, "MaxLog": 1}),
    Mutant("MetaRaft", ("pre-vote-first",), "L1_NoRashTerm", "thesis 9.6", {"Deafness": True}),
    Mutant("MetaRaft", ("hearers-grant-nothing",), "L1_NoRashTerm", "thesis 4.2.3",
           {"Deafness": True}),
    Mutant("MetaRaft", (), "L1_LeadersCommitOrGo", "nothing is delivered",
           {"MaxTerm": 1, "MaxLog": 2}, unfair=True),
)  # fmt: skip


def cases_of(tier: Tier) -> tuple[Case, ...]:
    included = list(Tier)[: list(Tier).index(tier) + 1]
    return tuple(case for case in CASES if case.tier in included)
