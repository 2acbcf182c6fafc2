# SPDX-License-Identifier: Apache-2.0
"""What the Redis journal does in one step on the server, and what its keys and cursors look like.

All keys of a journal carry its prefix in braces, which a cluster hashes: so they live on one node.

    {P}:packs      stream: one entry a pack. k kind, n records, i running number of the pack, w when the
                   worker sent it (s), b body
    {P}:kept       stream: findings and control records once more, under the same ids, so that the stream of
                   packs can be trimmed at the age of ordinary records
    {P}:meta       hash: generation, key (fingerprint), format; ms, seq, number of the newest pack;
                   pruned, pruned_number: ordinary packs up to here are gone on purpose; pruned_findings
    {P}:seals      sorted set: signed ranges of the chain (redis_seals.py), by the cursor they end at
    {P}:snapshots  hash: generation:cursor to where its chunks are; {P}:snapshot:ID:N the chunks
    {P}:workers    hash of heartbeats; {P}:seen sorted set: when; {P}:left set: who said good-bye
    {P}:lead       hash: holder, until (ms)

An id MS-SEQ of the streams becomes the cursor (MS - EPOCH_MS) * 4096 + SEQ: a whole number below 2**53 until
2089, which any JSON reader keeps exact. The server's clock gives the ids; they never go back with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

EPOCH_MS: Final = 1_577_836_800_000  # 2020-01-01
_SEQUENCES: Final = 4096  # packs in one millisecond

FORMAT: Final = "1"
LOST: Final = "TFLOST"
"""Begins the error reply of a script that found another history than the caller's."""


def cursor_of(entry_id: bytes) -> int:
    """The cursor of a stream entry."""
    ms, _, seq = entry_id.partition(b"-")
    return (int(ms) - EPOCH_MS) * _SEQUENCES + int(seq)


def id_of(cursor: int) -> str:
    """The stream id of a cursor; for 0 and below, the one before any."""
    if cursor <= 0:
        return "0-0"
    return f"{cursor // _SEQUENCES + EPOCH_MS}-{cursor % _SEQUENCES}"


def time_of(cursor: int) -> float:
    """When a pack was stored, seconds since the epoch, by the server's clock."""
    return (cursor // _SEQUENCES + EPOCH_MS) / 1000


def cursor_at(seconds: float) -> int:
    """The smallest cursor of that time."""
    return max((int(seconds * 1000) - EPOCH_MS) * _SEQUENCES, 0)


class Keys:
    """The names of a journal's keys."""

    def __init__(self, prefix: str) -> None:
        base = f"{{{prefix}}}:"
        self.packs = base + "packs"
        self.kept = base + "kept"
        self.meta = base + "meta"
        self.seals = base + "seals"
        self.snapshots = base + "snapshots"
        self.workers = base + "workers"
        self.seen = base + "seen"
        self.left = base + "left"
        self.lead = base + "lead"
        self._base = base

    def chunk(self, snapshot: str, number: int) -> str:
        """One piece of a snapshot."""
        return f"{self._base}snapshot:{snapshot}:{number}"

    def aside(self, key: str, generation: str) -> str:
        """Where a key goes whose history nobody knows, when the history `generation` begins."""
        return f"{key}:before:{generation}"


@dataclass(frozen=True, slots=True)
class Script:
    """Lua that the server runs as one step."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


_NOW: Final = """
local function now_ms(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

BEGIN: Final = Script("""
-- KEYS: meta, packs, kept, seals, and where the last three go when nobody knows their history
-- ARGV: a new generation, fingerprint of the key, format, '1' to begin when there is none
if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then
  if ARGV[4] ~= '1' then return {false, false, false, 0} end
  local aside = 0
  for i = 2, 4 do
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('RENAME', KEYS[i], KEYS[i + 3])
      aside = aside + 1
    end
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'key', ARGV[2], 'format', ARGV[3])
  return {ARGV[1], ARGV[2], ARGV[3], aside}
end
local found = redis.call('HMGET', KEYS[1], 'generation', 'key', 'format')
return {found[1], found[2], found[3], 0}
""")

APPEND: Final = Script(
    _NOW
    + """
-- KEYS: meta, packs, kept
-- ARGV: generation, time in ms or '', worker's time in s, then kind, records, body of each pack
-- All or nothing: whatever can be wrong is found before the first write.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'ms', 'seq', 'number')
if meta[1] ~= ARGV[1] then return redis.error_reply('TFLOST another history') end
for i = 2, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a stream')
  end
end
local last_ms, seq, number = tonumber(meta[2]) or 0, tonumber(meta[3]) or 0, tonumber(meta[4]) or 0
local ms = now_ms(ARGV[2])
if ms <= last_ms then ms, seq = last_ms, seq + 1 else seq = 0 end
local ids = {}
for at = 4, #ARGV, 3 do
  if seq >= 4096 then ms, seq = ms + 1, 0 end
  number = number + 1
  local id = string.format('%.0f-%d', ms, seq)
  local kind, records, body = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  redis.call('XADD', KEYS[2], id, 'k', kind, 'n', records, 'i', number, 'w', ARGV[3], 'b', body)
  if kind ~= '0' then
    redis.call('XADD', KEYS[3], id, 'k', kind, 'n', records, 'i', number, 'w', ARGV[3], 'b', body)
  end
  ids[#ids + 1] = id
  seq = seq + 1
end
redis.call('HSET', KEYS[1], 'ms', string.format('%.0f', ms), 'seq', seq - 1, 'number', number)
ids[#ids + 1] = number
return ids
"""
)

RESEAL: Final = Script("""
-- KEYS: meta, seals, packs, kept
-- ARGV: generation, number of seals to take away, number of seals to put, number of kept entries to remove,
--       id below which packs are trimmed or '', field of meta to set or '', its value, pruned_number or '',
--       then the seals to take away, (cursor, seal) to put, ids of kept entries
-- Changes nothing unless every seal to take away is there, and the ends to put are free otherwise.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return redis.error_reply('TFLOST another history')
end
local away, put, gone = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at = 9
for i = at, at + away - 1 do
  if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then return 0 end
end
for i = at, at + away - 1 do redis.call('ZREM', KEYS[2], ARGV[i]) end
at = at + away
for i = 1, put do
  redis.call('ZADD', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, at + gone - 1 do redis.call('XDEL', KEYS[4], ARGV[i]) end
if ARGV[5] ~= '' then redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], ARGV[6], ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'pruned_number', ARGV[8]) end
return 1
""")

SEAL: Final = Script("""
-- KEYS: meta, seals. ARGV: generation, cursor of the newest seal, cursor of the one to add, the seal
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return redis.error_reply('TFLOST another history')
end
local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if (tonumber(newest[2]) or 0) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
return 1
""")

LEAD: Final = Script(
    _NOW
    + """
-- KEYS: lead. ARGV: worker, ms the lead lasts, time in ms or ''
local now, lasts = now_ms(ARGV[3]), tonumber(ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'holder', 'until')
local till = tonumber(found[2]) or 0
-- A lead that ends much later than any is given was made before the clock was set back.
if found[1] and found[1] ~= ARGV[1] and now < till and till <= now + 10 * lasts then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + lasts))
return 1
"""
)

BEAT: Final = Script("""
-- KEYS: workers, seen, left. ARGV: worker, now in s, body, heartbeats older than this (s) are dropped
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[4])) do
  redis.call('HDEL', KEYS[1], old)
  redis.call('ZREM', KEYS[2], old)
  redis.call('SREM', KEYS[3], old)
end
return 1
""")

LEAVE: Final = Script("""
-- KEYS: workers, left, lead. ARGV: worker
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1]) end
if redis.call('HGET', KEYS[3], 'holder') == ARGV[1] then redis.call('DEL', KEYS[3]) end
return 1
""")

PUT_SNAPSHOT: Final = Script("""
-- KEYS: meta, snapshots, then the chunks. ARGV: generation, name, description
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return redis.error_reply('TFLOST another history')
end
for i = 3, #KEYS do
  if redis.call('PERSIST', KEYS[i]) == 0 then return redis.error_reply('ERR a piece is gone') end
end
local old = redis.call('HGET', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return old
""")
