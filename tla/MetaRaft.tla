----------------------------- MODULE MetaRaft ------------------------------
(* The metadata quorum: Raft as in Ongaro's thesis, with pre-vote, check-    *)
(* quorum, disks that are slower than memory, restarts and lost disks.       *)
(*                                                                           *)
(* Messages are what was ever said: a promise that has left can be counted   *)
(* at any later time, a request or an append can arrive late, twice, or      *)
(* never. An append is any beginning of what the leader of its term has.     *)

EXTENDS Naturals, FiniteSets, Sequences, Order, Rules

CONSTANTS
    Voters,
    Campaigners,   \* voters that may want to lead
    MaxTerm,       \* bounds: terms, entries in a log, restarts, lost disks
    MaxLog,
    MaxRestarts,
    MaxWipes,
    SlowDisk,      \* TRUE: memory is ahead of the disk, until Persist
    Deafness,      \* TRUE: who hears a leader is modelled, and pre-vote with it
    InTurns        \* TRUE: voter 1 campaigns for odd terms, voter 2 for even ones, and a leader
                   \*   steps down only when it must: for scenarios of many terms

VARIABLES
    role,          \* follower, pre-candidate, candidate or leader
    term, vote, log,   \* in memory; an entry is the term that wrote it
    disk,          \* the three as a crash leaves them
    commit,        \* how far each voter knows the log to be committed
    hears,         \* voters that heard a leader within the minimum election timeout
    pre,           \* pre[c]: who would vote for c
    asked,         \* vote requests that have left
    granted,       \* granted[t][c]: whose votes for c in term t have left
    ledger,        \* ledger[t]: the log of the leader of term t; <<>> if there is none
    confirmed,     \* confirmed[t][v]: how far v told the leader of term t that it holds its log
    decided,       \* decided[t]: how far that leader has said its log to be committed
    wiped,         \* voters whose disk is gone
    committed,     \* ghost: what any leader has committed
    rash,          \* ghost: a term began although most voters heard a leader
    restarts, wipes

vars == <<role, term, vote, log, disk, commit, hears, pre, asked, granted, ledger, confirmed, decided,
          wiped, committed, rash, restarts, wipes>>
memory == <<term, vote, log, disk, granted>>
appends == <<ledger, confirmed, decided>>
rest == <<wiped, committed, rash, restarts, wipes>>

NoVote == 0
Terms == 1..MaxTerm

IsMajority(voters) == 2 * Cardinality(voters) > Cardinality(Voters)

LastTerm(entries) == IF entries = <<>> THEN 0 ELSE entries[Len(entries)]

\* Paper 5.4.1.
IsUpToDate(lastTerm, lastIndex, entries) ==
    \/ lastTerm > LastTerm(entries)
    \/ lastTerm = LastTerm(entries) /\ lastIndex >= Len(entries)

CommonLength(one, other) ==
    CHOOSE n \in 0..Least(Len(one), Len(other)) :
        /\ SubSeq(one, 1, n) = SubSeq(other, 1, n)
        /\ n < Least(Len(one), Len(other)) => one[n + 1] # other[n + 1]

\* Voters are (id, disk id): with another disk it is somebody else.
MayAct(v) == Rule("disk-ids", v \notin wiped)

\* What v says to itself and keeps; on a fast disk at once.
Remember(v, newTerm, newVote, newLog) ==
    /\ term' = [term EXCEPT ![v] = newTerm]
    /\ vote' = [vote EXCEPT ![v] = newVote]
    /\ log' = [log EXCEPT ![v] = newLog]
    /\ disk' = IF SlowDisk THEN disk
               ELSE [disk EXCEPT ![v] = [term |-> newTerm, vote |-> newVote, log |-> newLog]]
    /\ granted' = IF SlowDisk \/ newVote = NoVote THEN granted
                  ELSE [granted EXCEPT ![newTerm][newVote] = @ \cup {v}]

\* v holds `n` entries of the log of term t's leader.
Hold(v, t, n) ==
    confirmed' = IF SlowDisk THEN confirmed ELSE [confirmed EXCEPT ![t][v] = Greatest(@, n)]

Follow(v) ==
    /\ role' = [role EXCEPT ![v] = "follower"]
    /\ pre' = [pre EXCEPT ![v] = {}]

-----------------------------------------------------------------------------
(* Disks                                                                     *)

InMemory(v) == [term |-> term[v], vote |-> vote[v], log |-> log[v]]

Persist(v) ==
    /\ SlowDisk
    /\ disk[v] # InMemory(v)
    /\ disk' = [disk EXCEPT ![v] = InMemory(v)]
    /\ UNCHANGED <<role, term, vote, log, commit, hears, pre, asked, granted, appends, rest>>

\* A vote, also for oneself, leaves once it is on disk.
TellVote(v) ==
    /\ SlowDisk
    /\ MayAct(v)
    /\ vote[v] # NoVote
    /\ Rule("vote-after-sync", disk[v].term = term[v] /\ disk[v].vote = vote[v])
    /\ v \notin granted[term[v]][vote[v]]
    /\ granted' = [granted EXCEPT ![term[v]][vote[v]] = @ \cup {v}]
    /\ UNCHANGED <<role, term, vote, log, disk, commit, hears, pre, asked, appends, rest>>

\* So does word of what a voter holds of its leader's log; the leader counts itself like that too.
Confirm(v) ==
    /\ SlowDisk
    /\ MayAct(v)
    /\ term[v] \in Terms
    /\ LET t == term[v]
           held == IF Kept("confirm-after-sync")
                   THEN SubSeq(log[v], 1, CommonLength(log[v], disk[v].log)) ELSE log[v]
           same == CommonLength(held, ledger[t])
       IN  /\ ledger[t] # <<>>
           /\ Rule("confirm-after-sync", disk[v].term = t)
           /\ same > confirmed[t][v]
           /\ confirmed' = [confirmed EXCEPT ![t][v] = same]
    /\ UNCHANGED <<role, memory, commit, hears, pre, asked, ledger, decided, rest>>

-----------------------------------------------------------------------------
(* Elections                                                                 *)

\* Nothing was heard for the minimum election timeout.
Silence(v) ==
    /\ Deafness
    /\ v \in hears
    /\ role[v] # "leader"
    /\ hears' = hears \ {v}
    /\ UNCHANGED <<role, memory, commit, pre, asked, appends, rest>>

\* Persists and raises nothing.
PreCampaign(c) ==
    /\ Deafness
    /\ c \in Campaigners \ hears
    /\ MayAct(c)
    /\ role[c] # "leader"
    /\ role' = [role EXCEPT ![c] = "pre-candidate"]
    /\ pre' = [pre EXCEPT ![c] = {c}]
    /\ role[c] # "pre-candidate" \/ pre[c] # {c}
    /\ UNCHANGED <<memory, commit, hears, asked, appends, rest>>

GrantPreVote(v, c) ==
    /\ role[c] = "pre-candidate"
    /\ v # c
    /\ MayAct(v)
    /\ Rule("hearers-grant-nothing", v \notin hears /\ role[v] # "leader")
    /\ term[c] >= term[v]
    /\ IsUpToDate(LastTerm(log[c]), Len(log[c]), log[v])
    /\ v \notin pre[c]
    /\ pre' = [pre EXCEPT ![c] = @ \cup {v}]
    /\ rash' = (rash \/ v \in hears)
    /\ UNCHANGED <<role, memory, commit, hears, asked, appends, wiped, committed, restarts, wipes>>

Request(c, newTerm) ==
    [term |-> newTerm, from |-> c, lastTerm |-> LastTerm(log[c]), lastIndex |-> Len(log[c])]

Campaign(c) ==
    /\ c \in Campaigners
    /\ MayAct(c)
    /\ role[c] # "leader"
    /\ term[c] < MaxTerm
    /\ InTurns => c = 1 + (term[c] % 2)
    /\ Deafness => Rule("pre-vote-first", role[c] = "pre-candidate" /\ IsMajority(pre[c]))
    /\ role' = [role EXCEPT ![c] = "candidate"]
    /\ pre' = [pre EXCEPT ![c] = {}]
    /\ Remember(c, term[c] + 1, c, log[c])
    /\ asked' = IF SlowDisk THEN asked ELSE asked \cup {Request(c, term[c] + 1)}
    /\ rash' = (rash \/ (Deafness /\ ~IsMajority(pre[c])))
    /\ UNCHANGED <<commit, hears, appends, wiped, committed, restarts, wipes>>

\* A request speaks for the candidate's own vote: it leaves once that is on disk. Else a candidate that
\* was elected by the others could crash, forget the term, and be elected in it again.
AskForVotes(c) ==
    /\ SlowDisk
    /\ role[c] = "candidate"
    /\ Rule("request-after-sync", disk[c].term = term[c] /\ disk[c].vote = c)
    /\ Request(c, term[c]) \notin asked
    /\ asked' = asked \cup {Request(c, term[c])}
    /\ UNCHANGED <<role, memory, commit, hears, pre, appends, rest>>

\* A request arrives: its term is taken, a vote is given at most once in it.
Vote(v, m) ==
    /\ v # m.from
    /\ MayAct(v)
    /\ Rule("hearers-grant-nothing", ~Deafness \/ (v \notin hears /\ role[v] # "leader"))
    /\ m.term >= term[v]
    /\ LET given == IF m.term > term[v] THEN NoVote ELSE vote[v]
           grants == /\ Rule("one-vote-a-term", given \in {NoVote, m.from})
                     /\ Rule("vote-for-complete-logs", IsUpToDate(m.lastTerm, m.lastIndex, log[v]))
           gives == IF grants THEN m.from ELSE given
       IN  /\ m.term > term[v] \/ gives # vote[v]
           /\ Remember(v, m.term, gives, log[v])
    /\ IF m.term > term[v] THEN Follow(v) ELSE UNCHANGED <<role, pre>>
    /\ rash' = (rash \/ v \in hears)
    /\ UNCHANGED <<commit, hears, asked, appends, wiped, committed, restarts, wipes>>

\* The new leader's first entry is its own: only such an entry is committed by counting.
BecomeLeader(c) ==
    /\ role[c] = "candidate"
    /\ Len(log[c]) < MaxLog
    /\ IsMajority(granted[term[c]][c])
    /\ role' = [role EXCEPT ![c] = "leader"]
    /\ hears' = IF Deafness THEN hears \cup {c} ELSE hears
    /\ Remember(c, term[c], vote[c], Append(log[c], term[c]))
    /\ ledger' = [ledger EXCEPT ![term[c]] = log'[c]]
    /\ Hold(c, term[c], Len(log'[c]))
    /\ UNCHANGED <<commit, pre, asked, decided, rest>>

LeaveOffice(l) ==
    /\ Follow(l)
    /\ Remember(l, term[l], IF Kept("step-down-keeps-vote") THEN vote[l] ELSE NoVote, log[l])
    /\ UNCHANGED <<commit, hears, asked, appends, rest>>

\* A leader that no majority answers steps down, a candidate gives up. Term and vote stay.
StepDown(l) ==
    /\ role[l] \in {"leader", "candidate"}
    /\ ~InTurns
    /\ LeaveOffice(l)

\* No majority can answer a leader of an older term.
CheckQuorum(l) ==
    /\ role[l] = "leader"
    /\ IsMajority({v \in Voters : term[v] > term[l]})
    /\ LeaveOffice(l)

-----------------------------------------------------------------------------
(* Replication                                                               *)

Propose(l) ==
    /\ role[l] = "leader"
    /\ Len(log[l]) < MaxLog
    /\ Remember(l, term[l], vote[l], Append(log[l], term[l]))
    /\ ledger' = [ledger EXCEPT ![term[l]] = log'[l]]
    /\ Hold(l, term[l], Len(log'[l]))
    /\ UNCHANGED <<role, commit, hears, pre, asked, decided, rest>>

\* An append of term t arrives that reaches to entry n.
Store(v, t, n) ==
    /\ MayAct(v)
    /\ n <= Len(ledger[t])
    /\ Rule("refuse-lower-terms", t >= term[v])
    /\ role[v] = "leader" => t > term[v]
    /\ LET sent == SubSeq(ledger[t], 1, n)
           agrees == Len(log[v]) >= n /\ SubSeq(log[v], 1, n) = sent
       IN  /\ Remember(v, Greatest(t, term[v]), IF t > term[v] THEN NoVote ELSE vote[v],
                       IF agrees /\ Kept("cut-on-conflict-only") THEN log[v] ELSE sent)
           /\ commit' = [commit EXCEPT ![v] = Greatest(@, Least(decided[t], n))]
           /\ Hold(v, t, n)
    /\ Follow(v)
    /\ hears' = IF Deafness THEN hears \cup {v} ELSE hears
    /\ <<term', log', commit', role', hears', confirmed'>>
        # <<term, log, commit, role, hears, confirmed>>
    /\ UNCHANGED <<asked, ledger, decided, rest>>

Commit(l, n) ==
    /\ role[l] = "leader"
    /\ n > commit[l]
    /\ n <= Len(log[l])
    /\ IsMajority({v \in Voters : confirmed[term[l]][v] >= n})
    /\ Rule("commit-own-term-only", log[l][n] = term[l])
    /\ commit' = [commit EXCEPT ![l] = n]
    /\ decided' = [decided EXCEPT ![term[l]] = n]
    /\ committed' = IF n > Len(committed) THEN SubSeq(log[l], 1, n) ELSE committed
    /\ UNCHANGED <<role, memory, hears, pre, asked, ledger, confirmed, wiped, rash, restarts, wipes>>

-----------------------------------------------------------------------------
(* Disturbances                                                              *)

\* A voter that comes back has just heard a leader, as far as it knows.
Begin(v) ==
    /\ Follow(v)
    /\ commit' = [commit EXCEPT ![v] = 0]
    /\ hears' = IF Deafness THEN hears \cup {v} ELSE hears

Restart(v) ==
    /\ restarts < MaxRestarts
    /\ v \notin wiped
    /\ restarts' = restarts + 1
    /\ Begin(v)
    /\ term' = [term EXCEPT ![v] = disk[v].term]
    /\ vote' = [vote EXCEPT ![v] = disk[v].vote]
    /\ log' = [log EXCEPT ![v] = disk[v].log]
    /\ UNCHANGED <<disk, asked, granted, appends, wiped, committed, rash, wipes>>

Wipe(v) ==
    /\ wipes < MaxWipes
    /\ v \notin wiped
    /\ wipes' = wipes + 1
    /\ wiped' = wiped \cup {v}
    /\ Begin(v)
    /\ term' = [term EXCEPT ![v] = 0]
    /\ vote' = [vote EXCEPT ![v] = NoVote]
    /\ log' = [log EXCEPT ![v] = <<>>]
    /\ disk' = [disk EXCEPT ![v] = [term |-> 0, vote |-> NoVote, log |-> <<>>]]
    /\ UNCHANGED <<asked, granted, appends, committed, rash, restarts>>

-----------------------------------------------------------------------------

Init ==
    /\ role = [v \in Voters |-> "follower"]
    /\ term = [v \in Voters |-> 0]
    /\ vote = [v \in Voters |-> NoVote]
    /\ log = [v \in Voters |-> <<>>]
    /\ disk = [v \in Voters |-> [term |-> 0, vote |-> NoVote, log |-> <<>>]]
    /\ commit = [v \in Voters |-> 0]
    /\ hears = {}
    /\ pre = [v \in Voters |-> {}]
    /\ asked = {}
    /\ granted = [t \in Terms |-> [v \in Voters |-> {}]]
    /\ ledger = [t \in Terms |-> <<>>]
    /\ confirmed = [t \in Terms |-> [v \in Voters |-> 0]]
    /\ decided = [t \in Terms |-> 0]
    /\ wiped = {}
    /\ committed = <<>>
    /\ rash = FALSE
    /\ restarts = 0
    /\ wipes = 0

Next ==
    \/ \E v \in Voters :
        \/ Persist(v) \/ TellVote(v) \/ Confirm(v)
        \/ Silence(v) \/ PreCampaign(v) \/ Campaign(v) \/ AskForVotes(v)
        \/ BecomeLeader(v)
        \/ StepDown(v) \/ CheckQuorum(v) \/ Propose(v)
        \/ Restart(v) \/ Wipe(v)
    \/ \E v, c \in Voters : GrantPreVote(v, c)
    \/ \E v \in Voters, m \in asked : Vote(v, m)
    \/ \E v \in Voters, t \in Terms, n \in 1..MaxLog : Store(v, t, n)
    \/ \E v \in Voters, n \in 1..MaxLog : Commit(v, n)

Spec == Init /\ [][Next]_vars

Fairness ==
    \A v \in Voters :
        /\ WF_vars(Persist(v)) /\ WF_vars(Confirm(v)) /\ WF_vars(CheckQuorum(v))
        /\ \A t \in Terms, n \in 1..MaxLog : WF_vars(Store(v, t, n))
        /\ \A n \in 1..MaxLog : WF_vars(Commit(v, n))

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------

TypeOK ==
    /\ role \in [Voters -> {"follower", "pre-candidate", "candidate", "leader"}]
    /\ term \in [Voters -> 0..MaxTerm]
    /\ vote \in [Voters -> Voters \cup {NoVote}]
    /\ \A v \in Voters : Len(log[v]) <= MaxLog /\ commit[v] <= Len(log[v])
    /\ hears \subseteq Voters /\ wiped \subseteq Voters

G7_OneLeaderPerTerm ==
    /\ \A v, w \in Voters :
        role[v] = "leader" /\ role[w] = "leader" /\ term[v] = term[w] => v = w
    /\ \A t \in Terms : \A c, d \in Voters :
        IsMajority(granted[t][c]) /\ IsMajority(granted[t][d]) => c = d

G7_LogsMatch ==
    \A v, w \in Voters : \A n \in 1..Least(Len(log[v]), Len(log[w])) :
        log[v][n] = log[w][n] => SubSeq(log[v], 1, n) = SubSeq(log[w], 1, n)

\* What is committed is in the log of the newest leader.
G7_LeaderComplete ==
    \A l \in Voters :
        role[l] = "leader" /\ (\A t \in Terms : ledger[t] # <<>> => t <= term[l])
            => CommonLength(committed, log[l]) = Len(committed)

G7_CommittedAgrees ==
    \A v \in Voters : commit[v] <= Len(committed) /\ CommonLength(committed, log[v]) >= commit[v]

\* While a majority keep their disks (budget B).
G7_CommittedIsOnDisks ==
    IsMajority({v \in Voters :
        v \in wiped \/ CommonLength(committed, disk[v].log) = Len(committed)})

\* A term begins only when most voters hear no leader: who comes back disturbs nobody.
L1_NoRashTerm == ~rash

\* Whoever leads commits what it has, or leads no more.
L1_LeadersCommitOrGo ==
    \A l \in Voters : role[l] = "leader" ~> role[l] # "leader" \/ commit[l] = Len(log[l])

Metadata == INSTANCE MetaLog WITH entries <- committed, applied <- commit, Nodes <- Voters,
                                  Entries <- Terms, MaxEntries <- MaxLog

G7_RefinesMetaLog == Metadata!GrowsOnly
=============================================================================
