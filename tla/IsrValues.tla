----------------------------- MODULE IsrValues -----------------------------
(* Isr with the records themselves: what is copied, cut and kept are values, *)
(* and the epochs only decide where. It shows what Isr takes for granted:    *)
(* that epoch and offset name a record, so that runs of epochs say all.      *)

EXTENDS Isr

CONSTANT Values

VARIABLE values    \* values[r][n] is the record at offset n - 1

allVars == <<vars, values>>

InitValues == Init /\ values = [r \in Replicas |-> <<>>]

ProduceValue(l) ==
    /\ Produce(l)
    /\ \E value \in Values : values' = [values EXCEPT ![l] = Append(@, value)]

FetchValues(f) ==
    /\ Fetch(f)
    /\ LET end == EndOffset(log'[f])
           kept == Least(EndOffset(log[f]), end)
       IN  values' = [values EXCEPT ![f] =
                SubSeq(@, 1, kept) \o SubSeq(values[Image(f).leader], kept + 1, end)]

WipeValues(r) == Wipe(r) /\ values' = [values EXCEPT ![r] = <<>>]

\* Writing behind Isr's back.
Scribble(r) ==
    /\ ~Kept("only-steps-of-isr")
    /\ log[r] # <<>>
    /\ log' = [log EXCEPT ![r] = <<>>]
    /\ values' = [values EXCEPT ![r] = <<>>]
    /\ UNCHANGED <<metadata, known, life, hw, ends, start, proposed, asked, late, lost, ghosts,
                   bounds>>

\* Everything else leaves the bytes alone.
Other ==
    /\ \/ \E r \in Replicas :
            \/ Fence(r) \/ HandOver(r) \/ Register(r) \/ Unfence(r) \/ Learn(r)
            \/ AdvanceHw(r) \/ HoldUp(r) \/ Restart(r)
       \/ \E l, f \in Replicas : Shrink(l, f) \/ Expand(l, f)
       \/ \E p \in asked : Alter(p)
       \/ \E m \in late : ArriveLate(m)
    /\ UNCHANGED values

NextValues ==
    \/ \E r \in Replicas : ProduceValue(r) \/ FetchValues(r) \/ WipeValues(r) \/ Scribble(r)
    \/ Other

SpecValues == InitValues /\ [][NextValues]_allVars

TypeOKValues == \A r \in Replicas : Len(values[r]) = EndOffset(log[r])

\* Equal epoch at one offset: equal records up to there.
G3_EpochNamesRecord ==
    \A r, s \in Replicas : \A offset \in 0..Least(EndOffset(log[r]), EndOffset(log[s])) - 1 :
        EpochAt(log[r], offset) = EpochAt(log[s], offset)
            => SubSeq(values[r], 1, offset + 1) = SubSeq(values[s], 1, offset + 1)

\* Without the values these are behaviours of Isr.
G3_RefinesIsr == Init /\ [][Next]_vars
=============================================================================
