----------------------------- MODULE CommitLog -----------------------------
(* One partition as its clients may see it (G1, G3, G4): a log that only     *)
(* grows, acknowledgements of what is in it, readers that never see a        *)
(* record change. The models of replication refine this.                     *)

EXTENDS Naturals, EpochRuns, Rules

CONSTANTS
    Epochs,      \* set of leader epochs
    MaxRecords   \* how long the log may grow

VARIABLES
    committed,   \* all that was ever below a leader's high watermark, as runs
    acked,       \* how much of it was acknowledged: every record below
    seen         \* what the reader that is furthest has got

vars == <<committed, acked, seen>>

Init ==
    /\ committed = <<>>
    /\ acked = 0
    /\ seen = <<>>

Commit(epoch) ==
    /\ EndOffset(committed) < MaxRecords
    /\ Rule("epochs-in-order", epoch >= LastEpoch(committed))
    /\ committed' = WithRecord(committed, epoch)
    /\ UNCHANGED <<acked, seen>>

\* Taking a committed record back is what must never be.
TakeBack ==
    /\ ~Kept("append-only")
    /\ committed # <<>>
    /\ committed' = Cut(committed, EndOffset(committed) - 1)
    /\ UNCHANGED <<acked, seen>>

Ack(offset) ==
    /\ offset > acked
    /\ Rule("ack-what-is-committed", offset <= EndOffset(committed))
    /\ acked' = offset
    /\ UNCHANGED <<committed, seen>>

Read(offset) ==
    /\ offset > EndOffset(seen)
    /\ seen' = Cut(committed, offset)
    /\ UNCHANGED <<committed, acked>>

Next ==
    \/ \E epoch \in Epochs : Commit(epoch)
    \/ TakeBack
    \/ \E offset \in 1..MaxRecords : Ack(offset) \/ Read(offset)

Spec == Init /\ [][Next]_vars

\* What a refinement must do: it may take many of these steps in one.
Grows ==
    /\ IsPrefix(committed, committed')
    /\ acked' >= acked
    /\ acked' <= EndOffset(committed')

GrowsOnly == committed = <<>> /\ acked = 0 /\ [][Grows]_vars

-----------------------------------------------------------------------------

TypeOK ==
    /\ acked \in 0..MaxRecords
    /\ \A i \in 1..Len(committed) : committed[i][1] \in Epochs /\ committed[i][2] \in 1..MaxRecords

G1_AckedStays == acked <= EndOffset(committed)

G3_EpochsInOrder == \A i \in 1..Len(committed) - 1 : committed[i][1] < committed[i + 1][1]

G4_SeenStays == IsPrefix(seen, committed)
=============================================================================
