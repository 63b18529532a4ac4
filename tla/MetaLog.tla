------------------------------ MODULE MetaLog ------------------------------
(* The metadata log as everything above it may take it (G7): one sequence    *)
(* of entries that only grows, of which each node knows a beginning.         *)

EXTENDS Naturals, Sequences, Rules

CONSTANTS
    Nodes,
    Entries,      \* set of entries
    MaxEntries

VARIABLES
    entries,      \* what is committed
    applied       \* how much of it each node has applied

vars == <<entries, applied>>

Init == entries = <<>> /\ applied = [n \in Nodes |-> 0]

Commit(entry) ==
    /\ Len(entries) < MaxEntries
    /\ entries' = Append(entries, entry)
    /\ UNCHANGED applied

Apply(n) ==
    /\ Rule("apply-what-is-committed", applied[n] < Len(entries))
    /\ applied[n] < MaxEntries
    /\ applied' = [applied EXCEPT ![n] = @ + 1]
    /\ UNCHANGED entries

\* A node that starts anew applies from the beginning.
Restart(n) ==
    /\ applied[n] > 0
    /\ applied' = [applied EXCEPT ![n] = 0]
    /\ UNCHANGED entries

Next ==
    \/ \E entry \in Entries : Commit(entry)
    \/ \E n \in Nodes : Apply(n) \/ Restart(n)

Spec == Init /\ [][Next]_vars

\* What a refinement must do.
Grows ==
    /\ Len(entries) <= Len(entries')
    /\ SubSeq(entries', 1, Len(entries)) = entries
    /\ \A n \in Nodes : applied'[n] <= Len(entries')

GrowsOnly == entries = <<>> /\ [][Grows]_vars

-----------------------------------------------------------------------------

TypeOK ==
    /\ \A i \in 1..Len(entries) : entries[i] \in Entries
    /\ applied \in [Nodes -> 0..MaxEntries]

G7_AppliedIsCommitted == \A n \in Nodes : applied[n] <= Len(entries)
=============================================================================
