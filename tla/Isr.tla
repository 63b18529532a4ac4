-------------------------------- MODULE Isr --------------------------------
(* One partition, replicated by pull: the ISR, its high watermark, leader    *)
(* epochs, truncation where histories part, changes of the ISR by compare-   *)
(* and-set, incarnations. Logs count as soon as they are written: what disks *)
(* lose is the subject of IsrDisk. Sources: KIP-101, 279, 320, 497, 841, 903.*)

EXTENDS Naturals, FiniteSets, Sequences, EpochRuns, Rules

CONSTANTS
    Replicas,
    FirstLeaders,  \* who may lead at the start
    MinIsr,        \* min.insync.replicas
    MaxRecords,    \* bounds: records in a log, leader epochs, metadata entries,
    MaxEpoch,      \*   restarts, of which with an empty disk, and requests
    MaxEntries,    \*   that are held up on their way
    MaxRestarts,
    MaxWipes,
    MaxLate

VARIABLES
    metadata,      \* the committed metadata log: a sequence of images of the partition
    known,         \* how many of them each replica has applied
    life,          \* the metadata entry that registered this incarnation; 0 before that
    log,           \* runs of leader epochs
    hw,            \* the high watermark as each replica knows it
    ends,          \* ends[l][f]: how far l, as leader of this epoch, knows f to have come
    start,         \* where a leader's own epoch begins
    proposed,      \* the ISR a leader has proposed and not seen decided: at most one
    asked,         \* proposals on their way to the controller
    late,          \* fetches on their way to a leader
    lost,          \* replicas whose disk was wiped since they last registered
    committed,     \* ghost: all that was ever below the high watermark of a leader
    smallest,      \* ghost: the size of the smallest ISR under which something was committed
    restarts,      \* how many restarts there were, and how many of these
    wipes          \*   with an empty disk

vars == <<metadata, known, life, log, hw, ends, start, proposed, asked, late, lost, committed,
          smallest, restarts, wipes>>
ghosts == <<committed, smallest>>
bounds == <<restarts, wipes>>

NoLeader == 0

Nothing == [r \in Replicas |-> 0]

-----------------------------------------------------------------------------
(* What is known, and to whom                                                *)

Latest == metadata[Len(metadata)]

Image(r) == metadata[known[r]]

\* A process takes no role before its image has reached its own registration.
IsActing(r) == Rule("role-after-registration", life[r] # 0 /\ known[r] >= life[r])

IsLeader(r) == IsActing(r) /\ Image(r).leader = r

\* Whoever may be in the ISR now (KIP-497): a removal counts when it is committed, an addition when
\* it is proposed.
MaximalIsr(l) ==
    LET image == Image(l)
        wanted == UNION {p.isr : p \in proposed[l]}
    IN  IF proposed[l] = {} THEN image.isr
        ELSE IF ~Kept("removal-counts-when-committed") THEN wanted
        ELSE IF ~Kept("addition-counts-when-proposed") THEN image.isr
        ELSE image.isr \cup wanted

EndOf(l, f) == IF f = l THEN EndOffset(log[l]) ELSE ends[l][f]

-----------------------------------------------------------------------------
(* The controller. Every entry is the whole image after it.                  *)

Write(image) ==
    /\ Len(metadata) < MaxEntries
    /\ image.epoch <= MaxEpoch
    /\ metadata' = Append(metadata, image)
    \* A proposal of an older version is refused for ever: as good as lost.
    /\ asked' = IF Kept("alter-compares-version")
                THEN {p \in asked : p.version >= image.version}
                ELSE asked

\* The fault budget B: some member of the ISR has what it had synced.
InBudget(isr) == \E r \in isr : r \notin lost

\* With a new leader the epoch grows.
NewEpoch == IF Kept("new-leader-new-epoch") THEN 1 ELSE 0

\* `image` without broker r in any role; `isLost`: what it held counts no more.
FencedOut(image, r, isLost, leader) ==
    LET others == image.isr \ {r}
        isr == IF others = {} /\ ~isLost /\ Kept("last-member-stays") THEN image.isr ELSE others
        elected == IF leader \in isr \cup {NoLeader} THEN isr ELSE {leader}
        changed == isr # image.isr \/ leader # image.leader
    IN  [image EXCEPT !.isr = elected,
                      !.active = @ \ {r},
                      !.leader = leader,
                      !.epoch = @ + (IF leader # image.leader THEN NewEpoch ELSE 0),
                      !.version = @ + (IF changed THEN 1 ELSE 0)]

\* Who may lead once r is fenced.
Successors(image, r) ==
    LET from == IF Kept("elect-from-isr") THEN image.isr ELSE Replicas
        able == (from \cap image.active) \ {r}
    IN  IF image.leader # r THEN {image.leader}
        ELSE IF able = {} THEN {NoLeader} ELSE able

Fence(r) ==
    /\ r \in Latest.active
    /\ \E leader \in Successors(Latest, r) :
        LET image == FencedOut(Latest, r, FALSE, leader)
        IN  (image.isr = {} \/ InBudget(image.isr)) /\ Write(image)
    /\ UNCHANGED <<known, life, log, hw, ends, start, proposed, late, lost, ghosts, bounds>>

\* Leadership may be handed to any active member of the ISR.
HandOver(r) ==
    /\ Latest.leader \in Replicas \ {r}
    /\ r \in Latest.isr \cap Latest.active
    /\ Write([Latest EXCEPT !.leader = r, !.epoch = @ + NewEpoch, !.version = @ + 1])
    /\ UNCHANGED <<known, life, log, hw, ends, start, proposed, late, lost, ghosts, bounds>>

\* A new incarnation: one entry fences the old one and gives the new one its broker epoch.
Register(r) ==
    /\ life[r] = 0
    /\ LET now == Len(metadata) + 1
       IN  /\ life' = [life EXCEPT ![r] = now]
           /\ IF Kept("registration-ends-leadership")
              THEN \E leader \in Successors(Latest, r) :
                    LET image == FencedOut(Latest, r, r \in lost, leader)
                    IN  /\ InBudget(image.isr)
                        /\ Write([image EXCEPT !.lives[r] = now])
              ELSE Write([Latest EXCEPT !.lives[r] = now])
    /\ lost' = lost \ {r}
    /\ UNCHANGED <<known, log, hw, ends, start, proposed, late, ghosts, bounds>>

\* A broker is active again once its image has reached its registration.
Unfence(r) ==
    /\ r \notin Latest.active
    /\ IsActing(r)
    /\ life[r] = Latest.lives[r]
    /\ LET leads == Latest.leader = NoLeader /\ r \in Latest.isr
           step == IF leads THEN 1 ELSE 0
       IN  Write([Latest EXCEPT !.active = @ \cup {r},
                                !.leader = IF leads THEN r ELSE @,
                                !.epoch = @ + step,
                                !.version = @ + step])
    /\ UNCHANGED <<known, life, log, hw, ends, start, proposed, late, lost, ghosts, bounds>>

\* AlterPartition: a refusal writes a new version too, so that no copy of the proposal lives on.
Alter(p) ==
    /\ p.from = Latest.leader
    /\ p.epoch = Latest.epoch
    /\ Rule("alter-compares-version", p.version = Latest.version)
    /\ LET eligible == \A r \in p.isr :
               /\ r \in Latest.active
               /\ Rule("alter-names-lives", p.lives[r] = Latest.lives[r])
           isr == IF eligible THEN p.isr ELSE Latest.isr
       IN  InBudget(isr) /\ Write([Latest EXCEPT !.isr = isr, !.version = @ + 1])
    /\ UNCHANGED <<known, life, log, hw, ends, start, proposed, late, lost, ghosts, bounds>>

-----------------------------------------------------------------------------
(* A replica applies the next metadata entry                                 *)

Learn(r) ==
    /\ known[r] < Len(metadata)
    /\ LET image == metadata[known[r] + 1]
           old == Image(r)
           newEpoch == image.epoch > old.epoch
           cut == ~Kept("truncate-by-epochs") /\ newEpoch /\ image.leader # r
       IN  /\ known' = [known EXCEPT ![r] = @ + 1]
           /\ ends' = [ends EXCEPT ![r] =
                IF newEpoch THEN Nothing
                ELSE [f \in Replicas |->
                        IF Kept("forget-old-lives") /\ image.lives[f] # old.lives[f]
                        THEN 0 ELSE @[f]]]
           /\ start' = [start EXCEPT ![r] =
                IF newEpoch THEN IF image.leader = r THEN EndOffset(log[r]) ELSE 0 ELSE @]
           /\ proposed' = [proposed EXCEPT ![r] =
                IF newEpoch THEN {} ELSE {p \in @ : p.version >= image.version}]
           /\ log' = IF cut THEN [log EXCEPT ![r] = Cut(@, hw[r])] ELSE log
    /\ UNCHANGED <<metadata, life, hw, asked, late, lost, ghosts, bounds>>

-----------------------------------------------------------------------------
(* The leader                                                                *)

Produce(l) ==
    /\ IsLeader(l)
    /\ EndOffset(log[l]) < MaxRecords
    /\ log' = [log EXCEPT ![l] = WithRecord(@, Image(l).epoch)]
    /\ UNCHANGED <<metadata, known, life, hw, ends, start, proposed, asked, late, lost, ghosts,
                   bounds>>

\* The watermark moves, and in this step everything below it is acknowledged.
AdvanceHw(l) ==
    /\ IsLeader(l)
    /\ Rule("no-commit-below-min-isr", Cardinality(Image(l).isr) >= MinIsr)
    /\ \E end \in {EndOf(l, f) : f \in MaximalIsr(l)} :
        /\ \A f \in MaximalIsr(l) : end <= EndOf(l, f)
        /\ end > hw[l]
        /\ hw' = [hw EXCEPT ![l] = end]
        /\ IF end > EndOffset(committed)
           THEN /\ committed' = Cut(log[l], end)
                /\ smallest' = Least(smallest, Cardinality(Image(l).isr))
           ELSE UNCHANGED ghosts
    /\ UNCHANGED <<metadata, known, life, log, ends, start, proposed, asked, late, lost, bounds>>

Ask(l, isr) ==
    LET p == [from |-> l, epoch |-> Image(l).epoch, version |-> Image(l).version, isr |-> isr,
              lives |-> [r \in Replicas |-> IF r \in isr THEN Image(l).lives[r] ELSE 0]]
    IN  /\ proposed' = [proposed EXCEPT ![l] = {p}]
        /\ asked' = IF p.version >= Latest.version \/ ~Kept("alter-compares-version")
                    THEN asked \cup {p} ELSE asked

\* How long a follower may lag is a matter of time: here it may be removed at any moment.
Shrink(l, f) ==
    /\ IsLeader(l)
    /\ proposed[l] = {}
    /\ f \in Image(l).isr \ {l}
    /\ Ask(l, Image(l).isr \ {f})
    /\ UNCHANGED <<metadata, known, life, log, hw, ends, start, late, lost, ghosts, bounds>>

Expand(l, f) ==
    /\ IsLeader(l)
    /\ proposed[l] = {}
    /\ f \in Image(l).active \ Image(l).isr
    /\ Rule("join-at-high-watermark", ends[l][f] >= hw[l])
    /\ Rule("join-at-epoch-start", ends[l][f] >= start[l])
    /\ Ask(l, Image(l).isr \cup {f})
    /\ UNCHANGED <<metadata, known, life, log, hw, ends, start, late, lost, ghosts, bounds>>

\* What must not be done: to take silence for a refusal.
Forget(l) ==
    /\ ~Kept("pending-until-decided")
    /\ proposed[l] # {}
    /\ proposed' = [proposed EXCEPT ![l] = {}]
    /\ UNCHANGED <<metadata, known, life, log, hw, ends, start, asked, late, lost, ghosts, bounds>>

-----------------------------------------------------------------------------
(* A follower fetches from whom it holds to be the leader                    *)

Request(f) ==
    [from |-> f, to |-> Image(f).leader, epoch |-> Image(f).epoch, life |-> life[f],
     last |-> LastEpoch(log[f]), end |-> EndOffset(log[f])]

\* The leader's checks (FetchHandler._check).
Serves(l, m) ==
    /\ IsLeader(l)
    /\ l # m.from
    /\ Rule("fetch-in-same-epoch", Image(l).epoch = m.epoch)
    /\ Rule("fetch-of-present-life", Image(l).lives[m.from] = m.life)

\* <<epoch, end>> on the leader of what the follower holds last; and whether histories part.
Found(l, m) == EpochEnd(log[l], m.last)

Parts(l, m) ==
    /\ m.end > 0
    /\ \/ Found(l, m)[2] < m.end
       \/ Kept("compare-epochs") /\ Found(l, m)[1] # m.last

\* Where the follower cuts (truncation_offset, KIP-279).
CutPoint(f, found) ==
    IF Kept("cut-by-own-epochs") THEN SharedEnd(log[f], found)
    ELSE Least(found[2], EndOffset(log[f]))

Fetch(f) ==
    /\ IsActing(f)
    /\ Image(f).leader \in Replicas
    /\ LET m == Request(f)
           l == m.to
       IN  /\ Serves(l, m)
           /\ IF Parts(l, m)
              THEN LET at == CutPoint(f, Found(l, m))
                       cut == Cut(log[f], at)
                   IN  /\ log' = [log EXCEPT ![f] =
                            IF Kept("ask-again-after-a-cut") THEN cut
                            ELSE Copied(cut, log[l], at)]
                       /\ UNCHANGED <<hw, ends>>
              ELSE /\ log' = [log EXCEPT ![f] = Copied(@, log[l], m.end)]
                   /\ ends' = [ends EXCEPT ![l][f] = m.end]
                   /\ hw' = [hw EXCEPT ![f] =
                        Greatest(@, IF Kept("watermark-within-log")
                                    THEN Least(hw[l], EndOffset(log'[f])) ELSE hw[l] + 1)]
           /\ <<log', ends', hw'>> # <<log, ends, hw>>
    /\ UNCHANGED <<metadata, known, life, start, proposed, asked, late, lost, ghosts, bounds>>

\* A request leaves and is held up; its answer will find nobody.
HoldUp(f) ==
    /\ Cardinality(late) < MaxLate
    /\ IsActing(f)
    /\ Image(f).leader \in Replicas \ {f}
    /\ late' = late \cup {Request(f)}
    /\ UNCHANGED <<metadata, known, life, log, hw, ends, start, proposed, asked, lost, ghosts,
                   bounds>>

ArriveLate(m) ==
    /\ late' = late \ {m}
    /\ IF Serves(m.to, m) /\ ~Parts(m.to, m)
       THEN ends' = [ends EXCEPT ![m.to][m.from] = m.end]
       ELSE UNCHANGED ends
    /\ UNCHANGED <<metadata, known, life, log, hw, start, proposed, asked, lost, ghosts, bounds>>

-----------------------------------------------------------------------------
(* Disturbances                                                              *)

\* A process comes back: its log and metadata are on disk, its watermark may not be.
Begin(r) ==
    /\ restarts < MaxRestarts
    /\ restarts' = restarts + 1
    /\ life' = [life EXCEPT ![r] = 0]
    /\ hw' = [hw EXCEPT ![r] = 0]
    /\ ends' = [ends EXCEPT ![r] = Nothing]
    /\ start' = [start EXCEPT ![r] = 0]
    /\ proposed' = [proposed EXCEPT ![r] = {}]

Restart(r) ==
    /\ Begin(r)
    /\ UNCHANGED <<metadata, known, log, asked, late, lost, ghosts, wipes>>

\* ... or with another, empty disk.
Wipe(r) ==
    /\ wipes < MaxWipes
    /\ \E other \in Latest.isr \ {r} : other \notin lost
    /\ Begin(r)
    /\ wipes' = wipes + 1
    /\ log' = [log EXCEPT ![r] = <<>>]
    /\ lost' = lost \cup {r}
    /\ UNCHANGED <<metadata, known, asked, late, ghosts>>

-----------------------------------------------------------------------------

Init ==
    /\ \E leader \in FirstLeaders :
        metadata = <<[leader |-> leader, epoch |-> 1, version |-> 1, isr |-> Replicas,
                      active |-> Replicas, lives |-> [r \in Replicas |-> 1]]>>
    /\ known = [r \in Replicas |-> 1]
    /\ life = [r \in Replicas |-> 1]
    /\ log = [r \in Replicas |-> <<>>]
    /\ hw = Nothing
    /\ ends = [r \in Replicas |-> Nothing]
    /\ start = Nothing
    /\ proposed = [r \in Replicas |-> {}]
    /\ asked = {}
    /\ late = {}
    /\ lost = {}
    /\ committed = <<>>
    /\ smallest = Cardinality(Replicas)
    /\ restarts = 0
    /\ wipes = 0

Next ==
    \/ \E r \in Replicas :
        \/ Fence(r) \/ HandOver(r) \/ Register(r) \/ Unfence(r) \/ Learn(r)
        \/ Produce(r) \/ AdvanceHw(r) \/ Forget(r)
        \/ Fetch(r) \/ HoldUp(r)
        \/ Restart(r) \/ Wipe(r)
    \/ \E l, f \in Replicas : Shrink(l, f) \/ Expand(l, f)
    \/ \E p \in asked : Alter(p)
    \/ \E m \in late : ArriveLate(m)

Spec == Init /\ [][Next]_vars

\* What heals happens in the end; disturbances are counted and need not happen at all.
Fairness ==
    /\ \A r \in Replicas :
        /\ WF_vars(Learn(r)) /\ WF_vars(AdvanceHw(r)) /\ WF_vars(Fetch(r))
        /\ WF_vars(Register(r)) /\ WF_vars(Unfence(r))
        /\ \A l \in Replicas : WF_vars(Expand(l, r))
    /\ WF_vars(\E p \in asked : Alter(p))

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------

TypeOK ==
    /\ \A i \in 1..Len(metadata) :
        metadata[i] \in [leader : Replicas \cup {NoLeader}, epoch : 1..MaxEpoch,
                         version : 1..MaxEntries, isr : SUBSET Replicas,
                         active : SUBSET Replicas, lives : [Replicas -> 1..MaxEntries]]
    /\ known \in [Replicas -> 1..MaxEntries]
    /\ life \in [Replicas -> 0..MaxEntries]
    /\ hw \in [Replicas -> 0..MaxRecords]
    /\ ends \in [Replicas -> [Replicas -> 0..MaxRecords]]
    /\ start \in [Replicas -> 0..MaxRecords]
    /\ \A r \in Replicas : EndOffset(log[r]) <= MaxRecords

\* Every member of the ISR that has its disk holds all that is committed.
G1_CommittedIsInIsr == \A r \in Latest.isr \ lost : IsPrefix(committed, log[r])

\* And there is one.
G1_IsrHasMember == \E r \in Latest.isr : r \notin lost

G2_CommittedByMinIsr == smallest >= MinIsr

\* The leader never counts fewer replicas than the controller may elect from.
G2_MaximalIsrCovers ==
    \A l \in Replicas :
        IsLeader(l) /\ Image(l).epoch = Latest.epoch => Latest.isr \subseteq MaximalIsr(l)

G3_WatermarksAgree == \A r \in Replicas : Agree(Cut(log[r], hw[r]), committed)

G3_LogsMatch ==
    \A r, s \in Replicas : \A offset \in 0..Least(EndOffset(log[r]), EndOffset(log[s])) - 1 :
        EpochAt(log[r], offset) = EpochAt(log[s], offset)
            => Cut(log[r], offset + 1) = Cut(log[s], offset + 1)

G4_WatermarkIsInLog == \A r \in Replicas : hw[r] <= EndOffset(log[r])

G6_OneLeaderPerEpoch ==
    \A r, s \in Replicas :
        IsLeader(r) /\ IsLeader(s) /\ Image(r).epoch = Image(s).epoch => r = s

\* Once nothing more happens, all replicas are in sync and equal (unless a bound forbids the way).
L1_Converges ==
    <>[](\/ Len(metadata) = MaxEntries \/ Latest.epoch = MaxEpoch
         \/ /\ Latest.isr = Replicas
            /\ Latest.leader \in Replicas
            /\ \A r \in Replicas :
                log[r] = log[Latest.leader] /\ hw[r] = EndOffset(log[Latest.leader]))

\* Clients see a log that only grows (G3, G4).
Clients == INSTANCE CommitLog WITH committed <- committed, acked <- EndOffset(committed),
                                   seen <- committed, Epochs <- 1..MaxEpoch

G4_RefinesCommitLog == Clients!GrowsOnly
=============================================================================
