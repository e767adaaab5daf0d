// A file system in memory that behaves as badly as a real one may. What was not synced when the
// power fails is lost, kept, torn at sector boundaries or kept out of order, piece by piece and
// file by file; a failed sync loses what it should have saved although reads still show it.
//
// Power failure has two steps, so that it can strike in the middle of a commit: power_off() (or
// the armed one) makes every later call fail; the test tears down what was running and calls
// restart(), which decides what survived. Single-threaded.
//
// Fault sites: files.open, files.read, files.write, files.truncate, files.sync, files.rename,
// files.remove (the call fails), files.power (the power fails inside a write or sync).
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/faults.hpp"
#include "sim/history.hpp"
#include "sim/random.hpp"
#include "sluice/base/files.hpp"

namespace sluice::sim {

class SimFiles final : public Files {
 public:
  static constexpr std::size_t kSector = 512;

  /// `faults` and `history` may be null; they must outlive this.
  SimFiles(std::uint64_t seed, Faults* faults = nullptr, History* history = nullptr)
      : random_(seed), faults_(faults), history_(history) {}

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<bool> exists(const std::string& path) override;
  Status remove(const std::string& path, bool durable) override;
  Status rename(const std::string& from, const std::string& to) override;

  void power_off() noexcept { powered_ = false; }
  bool powered() const noexcept { return powered_; }
  /// Ends a power failure: what survived is now both visible and durable. Old handles stay dead.
  void restart();

  /// Bytes all files together may hold; a write past it stores what fits and fails.
  void set_budget(std::uint64_t bytes) noexcept { budget_ = bytes; }
  std::uint64_t used() const noexcept;
  std::uint64_t syncs() const noexcept { return syncs_; }

  /// The whole content as it would be read now, and as a restart would find it if nothing
  /// unsynced survived. Absent files read as empty.
  Bytes visible(const std::string& path) const;
  Bytes durable(const std::string& path) const;
  /// Flips one bit of the durable and visible content: what a decaying disk does.
  void damage(const std::string& path, std::uint64_t bit);
  std::vector<std::string> paths() const;

 private:
  friend class SimFile;
  struct Change {
    enum class Kind : std::uint8_t { write, truncate } kind = Kind::write;
    std::uint64_t at = 0;  // offset, or the new size
    Bytes data;
  };
  struct Node {
    Bytes visible;
    Bytes durable;
    std::vector<Change> unsynced;
  };
  using NodePtr = std::shared_ptr<Node>;

  Status refuse(std::string_view site, std::string_view doing, const std::string& path);
  void note(std::string_view what, const std::string& path, std::uint64_t a = 0,
            std::uint64_t b = 0);
  static void apply(Bytes& content, const Change& change);
  /// Makes an arbitrary part of the unsynced changes durable and forgets the rest.
  void settle(Node& node);
  bool loses_power();

  SimRandom random_;
  Faults* faults_;
  History* history_;
  std::map<std::string, NodePtr> entries_;
  std::map<std::string, NodePtr> removed_;  // not durably: may come back
  std::uint64_t budget_ = UINT64_MAX;
  std::uint64_t epoch_ = 0;
  std::uint64_t syncs_ = 0;
  bool powered_ = true;
};

}  // namespace sluice::sim
