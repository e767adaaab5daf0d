// The rows a group may touch, fetched together before it is evaluated, with where PostgreSQL keeps each
// (ctid) and the version it gives it (xmin): what was read must still stand, and stand there, when the
// group is written. Writer's thread only.
#pragma once
#include <map>

#include "store/group_writes.hpp"
#include "store/overlay.hpp"
#include "store/postgres/connection.hpp"

namespace sluice::store {

/// Keys are found by the first 16 bytes of the scope's SHA-256: a short index, whatever the scope.
struct KeyId {
  char bytes[16];
  ByteView view() const noexcept { return {bytes, sizeof bytes}; }
  static KeyId of(ByteView scope) noexcept;
};

/// Which version of a row was read: another one stands elsewhere, or has another xmin.
struct PgVersion {
  std::uint64_t at = 0;  ///< ctid
  std::uint32_t xmin = 0;
};

class PgLoader final : public RowSource {
 public:
  template <class Row>
  struct Loaded {
    std::optional<Row> row;
    PgVersion version;
    bool known = false;    ///< asked for and answered
    bool used = false;     ///< the group's outcome depends on it
    bool written = false;  ///< the group writes it, which checks the version by itself
  };
  struct LoadedKv : Loaded<KvRow> {
    KvKey key;
  };
  struct LoadedKey : Loaded<KeyRow> {
    KeyId id;
  };
  struct LoadedJournal {
    std::uint32_t next = 0;
    bool known = false;
    bool used = false;
    bool written = false;
  };

  /// Forgets everything. Rows that are missed later are fetched over `connection` one by one.
  /// `careful`: nothing is presumed, as is otherwise the first record of a new journal.
  void begin(PgConnection& connection, bool careful);
  /// Notes what evaluating `commit` may touch.
  void foresee(const Commit& commit);
  /// Queues the statements for what was noted; the number of them.
  std::size_t send();
  /// Takes their answers, the first at `rows[at]`.
  Status receive(const std::vector<PgRows>& rows, std::size_t at);
  /// A row was fetched and that failed: no outcome of this group counts.
  const std::optional<Failure>& failure() const noexcept { return failure_; }
  /// Marks what the group writes. False: it depends on the absence of something that it does not
  /// write, which only writing alone can make sure of.
  bool settle_writes(const GroupWrites& writes);

  Overlay<LoadedKv>& kv() noexcept { return kv_; }
  Overlay<LoadedKey>& keys() noexcept { return keys_; }
  Overlay<Loaded<LeaseRow>>& leases() noexcept { return leases_; }
  std::map<std::uint64_t, Loaded<OpenRow>>& open() noexcept { return open_; }
  static void name_of(Bytes& out, const KvKey& key);

  Result<std::optional<KvRow>> load_kv(const KvKey& key) override;
  Result<std::optional<KeyRow>> load_key(const Bytes& scope) override;
  Result<std::optional<LeaseRow>> load_lease(const std::string& name) override;
  Result<std::optional<OpenRow>> load_open(ExchangeId exchange) override;
  Result<std::uint32_t> load_next_record(ExchangeId exchange) override;
  /// Always 0: the database adds its own last number when the group is written.
  Result<std::uint64_t> load_event_sequence(const std::string&) override { return 0; }

 private:
  void want(const KvKey& key);
  void want(const Bytes& scope);
  void want_lease(const std::string& name);
  void foresee(const std::vector<Mutation>& mutations);
  Status fetch_missing();

  bool planned_ = false;  // what was sent begins with how to plan it
  PgConnection* connection_ = nullptr;
  bool careful_ = false;
  std::optional<Failure> failure_;
  Bytes name_;
  Overlay<LoadedKv> kv_;
  Overlay<LoadedKey> keys_;
  Overlay<Loaded<LeaseRow>> leases_;
  std::map<std::uint64_t, Loaded<OpenRow>> open_;
  std::map<std::uint64_t, LoadedJournal> journal_;
  // What the statements on their way ask for, in their order.
  std::vector<LoadedKv*> sent_kv_;
  std::vector<Overlay<LoadedKey>::Entry*> sent_keys_;
  std::vector<Overlay<Loaded<LeaseRow>>::Entry*> sent_leases_;
  std::vector<std::uint64_t> sent_open_, sent_journal_;
};

}  // namespace sluice::store
