------------------------------- MODULE Rules -------------------------------
(* Rules that can be left out, to see what breaks without them.            *)
(* `Broken` holds the names of those that a run leaves out: none, in a     *)
(* correct model; one or two in a mutant (mutants.py).                     *)

CONSTANT Broken

Kept(rule) == rule \notin Broken

Rule(rule, condition) == Kept(rule) => condition
=============================================================================
