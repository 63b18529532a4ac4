------------------------------ MODULE IsrDisk ------------------------------
(* Replication on disks that lose what was not synced: written and synced    *)
(* ends, syncs that end late, process crashes and power losses, tails that   *)
(* come back, damage; the ISR and the eligible leader replicas (KIP-966).    *)
(*                                                                           *)
(* Assumed, and shown in Isr: metadata reaches everybody at once, proposals  *)
(* are decided at once, a fetch is one step. Source: protocol rules 1.1-1.10.*)

EXTENDS Naturals, FiniteSets, Sequences, EpochRuns, Rules

CONSTANTS
    Replicas,
    FirstLeaders,
    MinIsr,
    Flush,        \* "ack": what is synced counts; "async": what is written
    MaxRecords,
    MaxEpoch,
    MaxCrashes,   \* process crashes and power losses together
    MaxFences,    \* sessions that expire and followers that lag, together
    MaxDamages

VARIABLES
    leader, epoch, isr, elr, active,   \* the committed metadata of the partition
    up,           \* processes that run
    log,          \* what a process reads: runs of leader epochs
    disk,         \* what a power loss leaves: runs of leader epochs
    synced,       \* how far a process believes its log to be on disk
    syncing,      \* syncs under way: the log as it was when they began, and whether they count
    hw,
    ends,         \* how far the leader knows each follower to count, in this epoch
    start,        \* where the leader's epoch begins
    dirty,        \* replicas that lost bytes they had counted, since they last registered
    committed,    \* ghost: all that was ever below the high watermark of a leader
    crashes,
    fences,
    damages

vars == <<leader, epoch, isr, elr, active, up, log, disk, synced, syncing, hw, ends, start, dirty,
          committed, crashes, fences, damages>>
bounds == <<crashes, fences, damages>>
image == <<leader, epoch, isr, elr, active>>
files == <<log, disk, synced, syncing>>

NoLeader == 0

Nothing == [r \in Replicas |-> 0]

\* What a replica vouches for.
Counted(r) ==
    IF Flush = "ack" /\ Kept("only-synced-counts") THEN synced[r] ELSE EndOffset(log[r])

-----------------------------------------------------------------------------
(* The controller                                                            *)

\* ISR, ELR and leader after a change. `able` may lead, `gone` are eligible no more, `reported` is
\* what a leader that stays knows of the others; `anew`: in another epoch, even if it stays.
SettleIn(wanted, able, gone, reported, anew) ==
    LET eligible(members) ==
            IF Kept("elr-only-below-min-isr") /\ Cardinality(members) >= MinIsr THEN {}
            ELSE ((elr \cup isr) \ members) \ gone
        fromIsr == wanted \cap able
        fromElr == eligible(wanted) \cap able
    IN  \E next \in Replicas \cup {NoLeader} :
        /\ IF leader \in fromIsr THEN next = leader
           ELSE IF fromIsr # {} THEN next \in fromIsr
           ELSE IF fromElr # {} THEN next \in fromElr
           ELSE next = NoLeader
        /\ isr' = IF next \in wanted \cup {NoLeader} THEN wanted ELSE {next}
        /\ elr' = eligible(isr')
        /\ leader' = next
        /\ epoch' = IF next = leader /\ ~anew THEN epoch ELSE epoch + 1
        /\ epoch' <= MaxEpoch
        /\ ends' = IF next = leader /\ ~anew THEN reported ELSE Nothing
        /\ start' = IF next = leader /\ ~anew THEN start
                    ELSE IF next = NoLeader THEN 0 ELSE EndOffset(log[next])

Settle(wanted, able, gone, reported) == SettleIn(wanted, able, gone, reported, FALSE)

\* The fault budget B: some member of ISR or ELR keeps what counts; under "async" that is one that
\* keeps running.
InBudget(members, gone, running) ==
    \E r \in members \ gone : Flush = "ack" \/ r \in running

Disturb ==
    /\ fences < MaxFences
    /\ fences' = fences + 1

Fence(r) ==
    /\ Disturb
    /\ r \in active
    /\ active' = active \ {r}
    /\ Settle(IF isr = {r} THEN isr ELSE isr \ {r}, active', {}, ends)
    /\ InBudget(isr' \cup elr', dirty, up)
    /\ UNCHANGED <<up, files, hw, dirty, committed, crashes, damages>>

\* A process is there again, has recovered its log and registers. It leaves the ISR by the ordinary
\* rule; for good only where it may have lost what counted.
Register(r) ==
    /\ r \notin up
    /\ up' = up \cup {r}
    \* Recovered is not durable: first everything is synced.
    /\ disk' = IF Kept("sync-after-recovery") THEN [disk EXCEPT ![r] = log[r]] ELSE disk
    /\ synced' = [synced EXCEPT ![r] = EndOffset(log[r])]
    /\ dirty' = dirty \ {r}
    /\ active' = active \ {r}
    /\ LET isLost == IF Flush = "async" THEN Kept("unclean-async-leaves")
                     ELSE \/ r \in dirty /\ Kept("damage-is-reported")
                          \/ ~Kept("unclean-may-stay")
           gone == IF isLost THEN {r} ELSE {}
           others == isr \ {r}
       IN  Settle(IF others = {} /\ ~isLost THEN isr ELSE others, active', gone,
                 [ends EXCEPT ![r] = IF Kept("forget-old-lives") THEN 0 ELSE @])
    /\ UNCHANGED <<log, syncing, hw, committed, bounds>>

\* An active broker may lead again.
Unfence(r) ==
    /\ r \in up \ active
    /\ active' = active \cup {r}
    /\ Settle(isr, active', {}, ends)
    /\ UNCHANGED <<up, files, hw, dirty, committed, bounds>>

Leads(r) == leader = r /\ r \in up

Shrink(f) ==
    /\ Disturb
    /\ leader # NoLeader
    /\ Leads(leader)
    /\ f \in isr \ {leader}
    /\ Settle(isr \ {f}, active, {}, ends)
    /\ InBudget(isr' \cup elr', dirty, up)
    /\ UNCHANGED <<active, up, files, hw, dirty, committed, crashes, damages>>

Expand(f) ==
    /\ leader # NoLeader
    /\ Leads(leader)
    /\ f \in (active \cap up) \ isr
    /\ ends[f] >= hw[leader]
    /\ ends[f] >= start
    /\ Settle(isr \cup {f}, active, {}, ends)
    /\ UNCHANGED <<active, up, files, hw, dirty, committed, bounds>>

-----------------------------------------------------------------------------
(* Syncs                                                                     *)

Sync(r) ==
    /\ r \in up
    /\ syncing[r] = {}
    /\ synced[r] < EndOffset(log[r])
    /\ syncing' = [syncing EXCEPT ![r] = {[of |-> log[r], counts |-> TRUE]}]
    /\ UNCHANGED <<image, up, log, disk, synced, hw, ends, start, dirty, committed, bounds>>

\* What was there when it began is on disk; it counts if nothing was cut since.
Synced(r) ==
    \E s \in syncing[r] :
        /\ syncing' = [syncing EXCEPT ![r] = {}]
        /\ disk' = [disk EXCEPT ![r] = s.of]
        /\ synced' = IF s.counts
                     THEN [synced EXCEPT ![r] =
                        Greatest(@, Least(EndOffset(s.of), EndOffset(log[r])))]
                     ELSE synced
        /\ UNCHANGED <<image, up, log, hw, ends, start, dirty, committed, bounds>>

\* A log is cut to `offset`.
CutTo(r, offset) ==
    /\ log' = [log EXCEPT ![r] = Cut(@, offset)]
    /\ synced' = IF Kept("cut-lowers-synced-end")
                 THEN [synced EXCEPT ![r] = Least(@, offset)] ELSE synced
    /\ syncing' = IF Kept("sync-of-this-generation")
                  THEN [syncing EXCEPT ![r] = {[s EXCEPT !.counts = FALSE] : s \in @}]
                  ELSE syncing

-----------------------------------------------------------------------------
(* Replication                                                               *)

Produce ==
    /\ leader # NoLeader
    /\ Leads(leader)
    /\ EndOffset(log[leader]) < MaxRecords
    /\ log' = [log EXCEPT ![leader] = WithRecord(@, epoch)]
    /\ UNCHANGED <<image, up, disk, synced, syncing, hw, ends, start, dirty, committed, bounds>>

AdvanceHw ==
    /\ leader # NoLeader
    /\ Leads(leader)
    /\ Rule("no-commit-below-min-isr", Cardinality(isr) >= MinIsr)
    /\ LET end(r) == IF r = leader THEN Counted(r) ELSE ends[r]
       IN  \E low \in {end(r) : r \in isr} :
            /\ \A r \in isr : low <= end(r)
            /\ low > hw[leader]
            /\ hw' = [hw EXCEPT ![leader] = low]
            /\ committed' = IF low > EndOffset(committed) THEN Cut(log[leader], low) ELSE committed
    /\ UNCHANGED <<image, up, files, ends, start, dirty, bounds>>

Fetch(f) ==
    /\ leader # NoLeader
    /\ Leads(leader)
    /\ f \in up \ {leader}
    /\ LET found == EpochEnd(log[leader], LastEpoch(log[f]))
           end == EndOffset(log[f])
       IN  IF end > 0 /\ (found[2] < end \/ found[1] # LastEpoch(log[f]))
           THEN /\ CutTo(f, SharedEnd(log[f], found))
                /\ hw' = IF Flush = "async" THEN [hw EXCEPT ![f] = Least(@, EndOffset(log'[f]))]
                         ELSE hw
                /\ UNCHANGED <<disk, ends>>
           ELSE /\ log' = [log EXCEPT ![f] = Copied(@, log[leader], end)]
                /\ ends' = [ends EXCEPT ![f] = Counted(f)]
                /\ hw' = [hw EXCEPT ![f] = Greatest(@,
                        IF Kept("watermark-within-counted") THEN Least(hw[leader], Counted(f))
                        ELSE hw[leader])]
                /\ UNCHANGED <<disk, synced, syncing>>
    /\ <<log', ends', hw'>> # <<log, ends, hw>>
    /\ UNCHANGED <<image, up, start, dirty, committed, bounds>>

-----------------------------------------------------------------------------
(* What processes and disks suffer                                           *)

Down(r) ==
    /\ crashes < MaxCrashes
    /\ r \in up
    /\ crashes' = crashes + 1
    /\ up' = up \ {r}
    /\ syncing' = [syncing EXCEPT ![r] = {}]
    /\ hw' = [hw EXCEPT ![r] = 0]
    /\ InBudget(isr \cup elr, dirty, up \ {r})

\* kill -9: all that was written can be read again, none of it became durable by that.
ProcessCrash(r) ==
    /\ Down(r)
    /\ UNCHANGED <<image, log, disk, synced, ends, start, dirty, committed, fences, damages>>

\* Unsynced bytes go wholly or partly, and bytes that were cut off may be there again. Recovery takes
\* what continues the log: the expected offset, and no epoch below the last one.
PowerLoss(r) ==
    /\ Down(r)
    /\ \E kept \in CommonEnd(log[r], disk[r])..EndOffset(log[r]), isBack \in BOOLEAN :
        LET head == Cut(log[r], kept)
        IN  /\ isBack =>
                /\ kept < EndOffset(disk[r])
                /\ Rule("recovery-checks-epochs", EpochAt(disk[r], kept) >= LastEpoch(head))
            /\ log' = [log EXCEPT ![r] = IF isBack THEN Copied(head, disk[r], kept) ELSE head]
    /\ disk' = [disk EXCEPT ![r] = log'[r]]
    /\ synced' = [synced EXCEPT ![r] = Least(@, EndOffset(log'[r]))]
    /\ dirty' = IF Flush = "async" /\ ~IsPrefix(log[r], log'[r]) THEN dirty \cup {r} ELSE dirty
    /\ UNCHANGED <<image, ends, start, committed, fences, damages>>

\* A disk loses what it had said to have.
Damage(r) ==
    /\ damages < MaxDamages
    /\ r \notin up
    /\ log[r] # <<>>
    /\ damages' = damages + 1
    /\ log' = [log EXCEPT ![r] = Cut(@, EndOffset(@) - 1)]
    /\ disk' = [disk EXCEPT ![r] = log'[r]]
    /\ synced' = [synced EXCEPT ![r] = Least(@, EndOffset(log'[r]))]
    /\ dirty' = dirty \cup {r}
    /\ InBudget(isr \cup elr, dirty', up)
    /\ UNCHANGED <<image, up, syncing, hw, ends, start, committed, crashes, fences>>

\* A log rots while it is in use: it says to hold what it does not.
Rot(r) ==
    /\ damages < MaxDamages
    /\ r \in up \ dirty
    /\ log[r] # <<>>
    /\ damages' = damages + 1
    /\ dirty' = dirty \cup {r}
    /\ InBudget(isr \cup elr, dirty', up)
    /\ UNCHANGED <<image, up, files, hw, ends, start, committed, crashes, fences>>

\* It is found, and told: out of ISR and ELR, in an epoch in which nobody has counted it; and empty.
BeginAnew(r) ==
    /\ r \in up \cap dirty
    /\ r \in isr \cup elr => ((isr \cup elr) \cap active) \ {r} # {}
    /\ SettleIn(isr \ {r}, active \ {r}, {r}, ends, Kept("damage-ends-the-epoch"))
    /\ leader' # NoLeader
    /\ CutTo(r, 0)
    /\ hw' = [hw EXCEPT ![r] = 0]
    /\ dirty' = dirty \ {r}
    /\ UNCHANGED <<active, up, disk, committed, bounds>>

-----------------------------------------------------------------------------

Init ==
    /\ leader \in FirstLeaders
    /\ epoch = 1
    /\ isr = Replicas
    /\ elr = {}
    /\ active = Replicas
    /\ up = Replicas
    /\ log = [r \in Replicas |-> <<>>]
    /\ disk = [r \in Replicas |-> <<>>]
    /\ synced = Nothing
    /\ syncing = [r \in Replicas |-> {}]
    /\ hw = Nothing
    /\ ends = Nothing
    /\ start = 0
    /\ dirty = {}
    /\ committed = <<>>
    /\ crashes = 0
    /\ fences = 0
    /\ damages = 0

Next ==
    \/ Produce \/ AdvanceHw
    \/ \E r \in Replicas :
        \/ Fence(r) \/ Register(r) \/ Unfence(r) \/ Shrink(r) \/ Expand(r)
        \/ Sync(r) \/ Synced(r) \/ Fetch(r)
        \/ ProcessCrash(r) \/ PowerLoss(r) \/ Damage(r) \/ Rot(r) \/ BeginAnew(r)

Spec == Init /\ [][Next]_vars

Fairness ==
    /\ WF_vars(AdvanceHw)
    /\ \A r \in Replicas :
        /\ WF_vars(Register(r)) /\ WF_vars(Unfence(r)) /\ WF_vars(Expand(r))
        /\ WF_vars(Sync(r)) /\ WF_vars(Synced(r)) /\ WF_vars(Fetch(r))

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------

TypeOK ==
    /\ leader \in Replicas \cup {NoLeader}
    /\ epoch \in 1..MaxEpoch
    /\ isr \subseteq Replicas /\ elr \subseteq Replicas \ isr
    /\ leader = NoLeader \/ leader \in isr \cap active
    /\ \A r \in Replicas : EndOffset(log[r]) <= MaxRecords

\* Whoever may be elected, and has not lost what it counted, holds all that is committed; with
\* flush=ack on its disk.
G1_CommittedIsHeld ==
    \A r \in (isr \cup elr) \ dirty :
        /\ IsPrefix(committed, log[r])
        /\ Flush = "ack" => IsPrefix(committed, disk[r])

\* What a process believes to be on disk is.
G1_SyncedIsOnDisk ==
    Flush = "ack" => \A r \in Replicas : synced[r] <= CommonEnd(log[r], disk[r])

G3_WatermarksAgree == \A r \in Replicas : Agree(Cut(log[r], hw[r]), committed)

G3_EpochsInOrder == \A r \in Replicas : \A i \in 1..Len(log[r]) - 1 : log[r][i][1] < log[r][i + 1][1]

G4_WatermarkIsCounted == \A r \in up : hw[r] <= Counted(r)

\* However many lost power: once all are back, somebody leads, without an operator.
L1_LedWhenAllAreBack == active = Replicas => leader # NoLeader

\* Once nothing more happens all replicas are equal (unless the bound on epochs forbids the way).
L1_Converges ==
    <>[](\/ epoch = MaxEpoch
         \/ /\ isr = Replicas
            /\ \A r \in Replicas : log[r] = log[leader] /\ hw[r] = EndOffset(log[r]))

Clients == INSTANCE CommitLog WITH committed <- committed, acked <- EndOffset(committed),
                                   seen <- committed, Epochs <- 1..MaxEpoch

G4_RefinesCommitLog == Clients!GrowsOnly
=============================================================================
