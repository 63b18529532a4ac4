----------------------------- MODULE EpochRuns -----------------------------
(* A log as its runs of leader epochs: a sequence of <<epoch, end offset>>,  *)
(* which is what a broker's leader-epoch checkpoint holds (KIP-101). There   *)
(* is one leader per epoch, so epoch and offset name a record; IsrValues     *)
(* shows that nothing is lost by leaving out the records themselves.         *)

EXTENDS Naturals, Sequences, FiniteSets, Order

EndOffset(log) == IF log = <<>> THEN 0 ELSE log[Len(log)][2]

LastEpoch(log) == IF log = <<>> THEN 0 ELSE log[Len(log)][1]

RunStart(log, run) == IF run = 1 THEN 0 ELSE log[run - 1][2]

\* One record more, of `epoch`.
WithRecord(log, epoch) ==
    IF LastEpoch(log) = epoch
    THEN [log EXCEPT ![Len(log)] = <<epoch, @[2] + 1>>]
    ELSE Append(log, <<epoch, EndOffset(log) + 1>>)

\* What is left below `offset`.
Cut(log, offset) ==
    [run \in 1..Cardinality({i \in 1..Len(log) : RunStart(log, i) < offset}) |->
        <<log[run][1], Least(log[run][2], offset)>>]

\* <<epoch, end>> of the newest epoch not above `epoch`; <<epoch, 0>> if there is none.
EpochEnd(log, epoch) ==
    LET runs == Cardinality({i \in 1..Len(log) : log[i][1] <= epoch})
    IN  IF runs = 0 THEN <<epoch, 0>> ELSE log[runs]

IsPrefix(short, long) ==
    /\ EndOffset(short) <= EndOffset(long)
    /\ Cut(long, EndOffset(short)) = short

\* One of the two is the other's beginning.
Agree(one, other) == IsPrefix(one, other) \/ IsPrefix(other, one)

EpochAt(log, offset) ==
    log[Cardinality({i \in 1..Len(log) : log[i][2] <= offset}) + 1][1]

\* How far two logs are the same.
CommonEnd(one, other) ==
    CHOOSE n \in 0..Least(EndOffset(one), EndOffset(other)) :
        /\ Cut(one, n) = Cut(other, n)
        /\ \A m \in n + 1..Least(EndOffset(one), EndOffset(other)) : Cut(one, m) # Cut(other, m)

\* How far `log` can agree with a leader of which `found` = EpochEnd(leader's log, epoch) is known.
SharedEnd(log, found) ==
    IF EpochEnd(log, found[1])[1] = found[1]
    THEN Least(EpochEnd(log, found[1])[2], found[2])
    ELSE EpochEnd(log, found[1])[2]

\* The beginning of `own` up to `from`, and what follows there in `other`.
Copied(own, other, from) ==
    LET kept == Cut(own, from)
        tail == SubSeq(other, Cardinality({i \in 1..Len(other) : other[i][2] <= from}) + 1,
                       Len(other))
    IN  IF tail = <<>> THEN kept
        ELSE IF tail[1][1] = LastEpoch(kept) THEN SubSeq(kept, 1, Len(kept) - 1) \o tail
        ELSE kept \o tail
=============================================================================
