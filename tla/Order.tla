------------------------------- MODULE Order -------------------------------
(* The smaller and the greater of two numbers.                              *)

EXTENDS Naturals

Least(a, b) == IF a < b THEN a ELSE b

Greatest(a, b) == IF a > b THEN a ELSE b
=============================================================================
