----------------------------- MODULE Idempotent ----------------------------
(* A producer and one partition (G5, G6): sequences, up to InFlight batches   *)
(* on their way, requests that arrive late, twice or never, leader changes    *)
(* that lose what is not committed, and the table of the last batches of each *)
(* producer, rebuilt from the log. A batch is one record here.                *)
(*                                                                            *)
(* Assumed, and shown in Isr: a new leader has a beginning of the old one's   *)
(* log, and in it all that is committed.                                      *)

EXTENDS Naturals, FiniteSets, Sequences, Order, Rules

CONSTANTS
    InFlight,      \* max.in.flight.requests
    Window,        \* batches that a broker remembers of each producer
    MaxRecords,    \* bounds: records that are sent, identities, leader changes
    MaxIds,
    MaxEpochs,
    MaxChanges,
    MaxForgets     \* producers that a leader forgets, as if they had been silent for long

VARIABLES
    log,           \* the leader's log: batches
    hw,            \* how much of it is committed
    table,         \* what the leader knows of each producer: its epoch and last batches
    id, epoch,     \* the producer's present identity
    next,          \* its next sequence
    records,       \* how many records it has sent
    sent,          \* batches that have left; each may arrive again and again
    acked,         \* what the producer was told: [batch, offset]
    changes,
    forgotten,     \* the leader has forgotten producers up to this one, 0: none
    forgets

vars == <<log, hw, table, id, epoch, next, records, sent, acked, changes, forgotten, forgets>>
producer == <<id, epoch, next, records, sent>>

Ids == 1..MaxIds

Unknown == [epoch |-> 0, kept |-> <<>>]

Batch(record) == [id |-> id, epoch |-> epoch, sequence |-> next, record |-> record]

-----------------------------------------------------------------------------
(* The broker's table                                                        *)

\* The last `Window` of a sequence.
Last(kept) == IF Len(kept) <= Window THEN kept ELSE SubSeq(kept, Len(kept) - Window + 1, Len(kept))

\* `entries` with the batch noted that is in the log at `offset`; a new epoch forgets the old batches.
Noted(entries, batch, offset) ==
    LET old == entries[batch.id]
        kept == IF old.epoch = batch.epoch THEN old.kept ELSE <<>>
        place == [sequence |-> batch.sequence, offset |-> offset]
    IN  [entries EXCEPT ![batch.id] = [epoch |-> batch.epoch, kept |-> Last(Append(kept, place))]]

\* What replaying a log gives: per producer its newest epoch, and the last batches of that.
Replayed(batches) ==
    [i \in Ids |->
        LET places == {n \in 1..Len(batches) : batches[n].id = i}
            newest == CHOOSE e \in 0..MaxEpochs :
                /\ e = 0 <=> places = {}
                /\ places # {} => \E n \in places : batches[n].epoch = e
                /\ \A n \in places : batches[n].epoch <= e
            own == {n \in places : batches[n].epoch = newest}
            recent == {n \in own : Cardinality({m \in own : m >= n}) <= Window}
            nth(k) == CHOOSE n \in recent : Cardinality({m \in recent : m <= n}) = k
        IN  IF places = {} THEN Unknown
            ELSE [epoch |-> newest,
                  kept |-> [k \in 1..Cardinality(recent) |->
                    [sequence |-> batches[nth(k)].sequence, offset |-> nth(k) - 1]]]]

KeptAt(batch) ==
    LET entry == table[batch.id]
    IN  IF entry.epoch # batch.epoch THEN {}
        ELSE {k \in 1..Len(entry.kept) : entry.kept[k].sequence = batch.sequence}

\* The verdict on a batch that arrives (producer_state.py, VERDICTS).
Verdict(batch) ==
    LET entry == table[batch.id]
        first == batch.sequence = 0
    IN  IF entry = Unknown
        THEN IF /\ Rule("unknown-begins-at-zero", first)
                /\ Rule("forgotten-are-not-new", batch.id > forgotten)
             THEN "next" ELSE "unknown"
        ELSE IF batch.epoch < entry.epoch
        THEN IF Kept("old-epochs-are-fenced") THEN "fenced" ELSE "next"
        ELSE IF batch.epoch > entry.epoch THEN IF first THEN "next" ELSE "out of order"
        ELSE IF KeptAt(batch) # {} /\ Kept("duplicates-are-recognised") THEN "duplicate"
        ELSE IF Rule("no-gaps", batch.sequence = entry.kept[Len(entry.kept)].sequence + 1)
        THEN "next" ELSE "out of order"

-----------------------------------------------------------------------------
(* Producer                                                                  *)

IsAcked(batch) == \E a \in acked : a.batch = batch

Open == {b \in sent : b.id = id /\ b.epoch = epoch /\ ~IsAcked(b)}

Send ==
    /\ records < MaxRecords
    /\ Cardinality(Open) < InFlight
    \* Answers may be lost or overtake each other: what counts is how far back the oldest is.
    /\ Rule("in-flight-from-the-oldest", \A b \in Open : next - b.sequence < InFlight)
    /\ records' = records + 1
    /\ sent' = sent \cup {Batch(records + 1)}
    /\ next' = next + 1
    /\ UNCHANGED <<log, hw, table, id, epoch, acked, changes, forgotten, forgets>>

\* A batch was given up: nobody knows whether it is in the log. The session ends with it; records to
\* come go out under an identity that the partition has not seen.
EndSession ==
    /\ Open # {}
    /\ \/ id < MaxIds /\ id' = id + 1 /\ epoch' = 1
       \/ epoch < MaxEpochs /\ epoch' = epoch + 1 /\ UNCHANGED id
    /\ next' = IF Kept("no-second-identity") THEN 0 ELSE 1
    /\ sent' = IF Kept("no-second-identity") THEN sent
               ELSE sent \cup {[id |-> id', epoch |-> epoch', sequence |-> 0, record |-> r] :
                    r \in {b.record : b \in {o \in Open : \A p \in Open : o.record <= p.record}}}
    /\ UNCHANGED <<log, hw, table, records, acked, changes, forgotten, forgets>>

-----------------------------------------------------------------------------
(* Broker                                                                    *)

Append1(batch) ==
    /\ Verdict(batch) = "next"
    /\ Len(log) < MaxRecords + 1
    /\ log' = Append(log, batch)
    /\ table' = Noted(table, batch, Len(log))
    /\ UNCHANGED <<hw, producer, acked, changes, forgotten, forgets>>

\* A duplicate is answered with the offset of the first copy, like that one: once it is committed.
Answer(batch) ==
    /\ \E k \in KeptAt(batch) :
        LET offset == table[batch.id].kept[k].offset
        IN  /\ Rule("answer-after-commit", offset < hw)
            /\ acked' = acked \cup {[batch |-> batch, offset |-> offset]}
    /\ acked' # acked
    /\ UNCHANGED <<log, hw, table, producer, changes, forgotten, forgets>>

AdvanceHw ==
    /\ hw < Len(log)
    /\ hw' = hw + 1
    /\ UNCHANGED <<log, table, producer, acked, changes, forgotten, forgets>>

\* The producer that wrote nothing for long is forgotten, but for the number of its id.
ForgetProducer(i) ==
    /\ forgets < MaxForgets
    /\ table[i] # Unknown
    /\ forgets' = forgets + 1
    /\ table' = [table EXCEPT ![i] = Unknown]
    /\ forgotten' = IF i > forgotten THEN i ELSE forgotten
    /\ UNCHANGED <<log, hw, producer, acked, changes>>

\* Another leader, or this one again after a restart: its table is what its log says, and it may have
\* forgotten the same ones or, without the snapshot that says so, none.
ChangeLeader ==
    /\ changes < MaxChanges
    /\ changes' = changes + 1
    /\ \E end \in (IF Kept("successor-has-committed") THEN hw ELSE 0)..Len(log) : log' = SubSeq(log, 1, end)
    /\ \E f \in {0, forgotten} :
        /\ forgotten' = f
        /\ table' = IF ~Kept("followers-note-too") THEN [i \in Ids |-> Unknown]
                    ELSE IF ~Kept("table-follows-truncation") THEN table
                    ELSE [i \in Ids |-> IF i <= f /\ table[i] = Unknown THEN Unknown ELSE Replayed(log')[i]]
    /\ UNCHANGED <<hw, producer, acked, forgets>>

-----------------------------------------------------------------------------

Init ==
    /\ log = <<>>
    /\ hw = 0
    /\ table = [i \in Ids |-> Unknown]
    /\ id = 1
    /\ epoch = 1
    /\ next = 0
    /\ records = 0
    /\ sent = {}
    /\ acked = {}
    /\ changes = 0
    /\ forgotten = 0
    /\ forgets = 0

Next ==
    \/ Send \/ EndSession \/ AdvanceHw \/ ChangeLeader
    \/ \E i \in Ids : ForgetProducer(i)
    \/ \E batch \in sent : Append1(batch) \/ Answer(batch)

Spec == Init /\ [][Next]_vars

Fairness ==
    /\ WF_vars(AdvanceHw)
    /\ WF_vars(\E batch \in Open : Append1(batch))
    /\ WF_vars(\E batch \in Open : Answer(batch))

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------

TypeOK ==
    /\ hw <= Len(log)
    /\ id \in Ids /\ epoch \in 1..MaxEpochs
    /\ \A n \in 1..Len(log) : log[n] \in sent
    /\ \A i \in Ids : Len(table[i].kept) <= Window
    /\ forgotten \in 0..MaxIds

G5_NoDuplicate == \A m, n \in 1..Len(log) : log[m].record = log[n].record => m = n

\* The batches of a session are in the log without a gap, in order.
G5_InOrder ==
    \A n \in 1..Len(log) :
        log[n].sequence = Cardinality({m \in 1..n - 1 :
            log[m].id = log[n].id /\ log[m].epoch = log[n].epoch})

\* What was acknowledged is where the answer said, and committed.
G5_AckedIsThere ==
    \A a \in acked : a.offset < hw /\ log[a.offset + 1] = a.batch

\* Of a producer that was not forgotten: a retry of a batch that is in the log is known for what it
\* is.
G5_RetryIsRecognised ==
    \A batch \in {b \in Open : b.id > forgotten} :
        (\E n \in 1..Len(log) : log[n] = batch) => Verdict(batch) = "duplicate"

\* And what follows the last batch of the session is taken: no false refusal.
G5_NextIsTaken ==
    \A batch \in {b \in Open : b.id > forgotten} :
        batch.sequence = Cardinality({n \in 1..Len(log) : log[n].id = id /\ log[n].epoch = epoch})
            => Verdict(batch) = "next"

G6_OldEpochsAreFenced ==
    \A m, n \in 1..Len(log) : m < n /\ log[m].id = log[n].id => log[m].epoch <= log[n].epoch

\* Every batch of a session that lasts is acknowledged.
L1_BatchesEnd ==
    \A r \in 1..MaxRecords :
        (\E b \in Open : b.record = r) ~> ~(\E b \in Open : b.record = r)

Committed == INSTANCE MetaLog WITH entries <- SubSeq(log, 1, Least(hw, Len(log))),
                                   applied <- <<Least(hw, Len(log))>>,
                                   Nodes <- {1}, Entries <- Ids, MaxEntries <- MaxRecords

G4_CommittedStays == Committed!GrowsOnly
=============================================================================
