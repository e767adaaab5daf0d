#include "sim/files.hpp"

#include <algorithm>

namespace sluice::sim {
namespace {

std::unexpected<Failure> dead(const std::string& path) {
  return fail(FailureKind::unavailable, "io_error", path + ": the power is off");
}

}  // namespace

class SimFile final : public File {
 public:
  SimFile(SimFiles& files, SimFiles::NodePtr node, std::string path, bool writable)
      : files_(files),
        node_(std::move(node)),
        path_(std::move(path)),
        epoch_(files.epoch_),
        writable_(writable) {}

  Result<std::size_t> read_at(std::uint64_t offset, void* out, std::size_t size) override {
    SLUICE_TRY(usable("files.read", "reading"));
    const Bytes& content = node_->visible;
    if (offset >= content.size()) return 0;
    const std::size_t got = std::min<std::size_t>(size, content.size() - offset);
    std::memcpy(out, content.data() + offset, got);
    return got;
  }

  Status write_at(std::uint64_t offset, ByteView data) override {
    SLUICE_TRY(usable({}, "writing"));
    if (!writable_) return read_only();
    const std::uint64_t before = node_->visible.size();
    const std::uint64_t grown = std::max<std::uint64_t>(before, offset + data.size()) - before;
    const std::uint64_t used = files_.used();
    const std::uint64_t room = files_.budget_ > used ? files_.budget_ - used : 0;
    if (grown > room) {
      const std::uint64_t end = before + room;
      put(offset, data.substr(0, end > offset ? static_cast<std::size_t>(end - offset) : 0));
      return fail(FailureKind::unavailable, "disk_full",
                  "writing " + path_ + ": no space left; free some");
    }
    const bool fails = files_.faults_ != nullptr && files_.faults_->fires("files.write");
    const bool dies = !fails && files_.loses_power();
    put(offset, fails || dies ? data.substr(0, files_.random_.below(data.size() + 1)) : data);
    if (dies) return dead(path_);
    if (fails) return io_error("writing");
    return {};
  }

  Status truncate(std::uint64_t size) override {
    SLUICE_TRY(usable("files.truncate", "truncating"));
    if (!writable_) return read_only();
    files_.note("truncate", path_, size);
    change({.kind = SimFiles::Change::Kind::truncate, .at = size, .data = {}});
    return {};
  }

  Status sync() override {
    SLUICE_TRY(usable({}, "syncing"));
    files_.note("sync", path_, node_->unsynced.size());
    ++files_.syncs_;
    if (files_.loses_power()) return dead(path_);
    if (files_.faults_ != nullptr && files_.faults_->fires("files.sync")) {
      // The kernel marks the pages clean: reads keep showing them, no later sync writes them.
      files_.settle(*node_);
      return io_error("syncing");
    }
    for (const auto& done : node_->unsynced) SimFiles::apply(node_->durable, done);
    node_->unsynced.clear();
    return {};
  }

  Result<std::uint64_t> size() override {
    SLUICE_TRY(usable({}, "examining"));
    return node_->visible.size();
  }

 private:
  Status usable(std::string_view site, std::string_view doing) {
    if (epoch_ != files_.epoch_) return dead(path_);
    return files_.refuse(site, doing, path_);
  }
  std::unexpected<Failure> io_error(std::string_view doing) {
    return fail(FailureKind::unavailable, "io_error",
                std::string(doing) + " " + path_ + ": input/output error; check the disk");
  }
  std::unexpected<Failure> read_only() {
    return fail(FailureKind::forbidden, "no_permission", path_ + " was opened for reading");
  }
  void put(std::uint64_t offset, ByteView data) {
    files_.note("write", path_, offset, data.size());
    if (!data.empty())
      change({.kind = SimFiles::Change::Kind::write, .at = offset, .data = Bytes(data)});
  }
  void change(SimFiles::Change change) {
    SimFiles::apply(node_->visible, change);
    node_->unsynced.push_back(std::move(change));
  }

  SimFiles& files_;
  SimFiles::NodePtr node_;
  std::string path_;
  std::uint64_t epoch_;
  bool writable_;
};

Status SimFiles::refuse(std::string_view site, std::string_view doing, const std::string& path) {
  if (!powered_) return dead(path);
  if (!site.empty() && faults_ != nullptr && faults_->fires(site))
    return fail(FailureKind::unavailable, "io_error",
                std::string(doing) + " " + path + ": input/output error; check the disk");
  return {};
}

bool SimFiles::loses_power() {
  if (faults_ == nullptr || !faults_->fires("files.power")) return false;
  powered_ = false;
  return true;
}

void SimFiles::note(std::string_view what, const std::string& path, std::uint64_t a,
                    std::uint64_t b) {
  if (history_ != nullptr) history_->note(what, hash64(path), a * 0x9E3779B97F4A7C15ull + b);
}

void SimFiles::apply(Bytes& content, const Change& change) {
  if (change.kind == Change::Kind::truncate) return content.resize(change.at);
  if (content.size() < change.at + change.data.size())
    content.resize(change.at + change.data.size());
  std::copy(change.data.begin(), change.data.end(),
            content.begin() + static_cast<std::ptrdiff_t>(change.at));
}

void SimFiles::settle(Node& node) {
  // 0: nothing survived, 1: everything, 2: a prefix, 3: sector by sector at random.
  const std::uint64_t way = random_.below(4);
  std::size_t whole = 0;
  if (way == 1) whole = node.unsynced.size();
  if (way == 2) whole = random_.below(node.unsynced.size() + 1);
  for (std::size_t i = 0; i < node.unsynced.size(); ++i) {
    const Change& change = node.unsynced[i];
    if (i < whole) {
      apply(node.durable, change);
    } else if (way == 3 && change.kind == Change::Kind::truncate) {
      if (random_.one_in(2)) apply(node.durable, change);
    } else if (way == 3 || (way == 2 && i == whole)) {
      for (std::size_t from = 0; from < change.data.size();) {
        const std::uint64_t at = change.at + from;
        const auto size = std::min<std::size_t>(kSector - at % kSector, change.data.size() - from);
        if (random_.one_in(2))
          apply(node.durable, {.at = at, .data = change.data.substr(from, size)});
        from += size;
      }
    }
  }
  node.unsynced.clear();
}

void SimFiles::restart() {
  for (auto& [path, node] : removed_)
    if (!entries_.contains(path) && random_.one_in(2)) entries_[path] = node;
  removed_.clear();
  for (auto& [path, node] : entries_) {
    settle(*node);
    node->visible = node->durable;
    note("survived", path, node->visible.size(), hash64(node->visible));
  }
  ++epoch_;
  powered_ = true;
}

Result<std::unique_ptr<File>> SimFiles::open(const std::string& path, OpenMode mode) {
  SLUICE_TRY(refuse("files.open", "opening", path));
  auto found = entries_.find(path);
  if (found == entries_.end()) {
    if (mode != OpenMode::create)
      return fail(FailureKind::not_found, "no_such_file", "opening " + path + ": no such file");
    removed_.erase(path);
    found = entries_.emplace(path, std::make_shared<Node>()).first;
    note("create", path);
  }
  return std::make_unique<SimFile>(*this, found->second, path, mode != OpenMode::read);
}

Result<bool> SimFiles::exists(const std::string& path) {
  SLUICE_TRY(refuse({}, "looking for", path));
  return entries_.contains(path);
}

Status SimFiles::remove(const std::string& path, bool durable) {
  SLUICE_TRY(refuse("files.remove", "removing", path));
  const auto found = entries_.find(path);
  if (found == entries_.end())
    return fail(FailureKind::not_found, "no_such_file", "removing " + path + ": no such file");
  note("remove", path, durable ? 1 : 0);
  if (!durable) removed_[path] = found->second;
  entries_.erase(found);
  return {};
}

Status SimFiles::rename(const std::string& from, const std::string& to) {
  SLUICE_TRY(refuse("files.rename", "renaming", from));
  const auto found = entries_.find(from);
  if (found == entries_.end())
    return fail(FailureKind::not_found, "no_such_file", "renaming " + from + ": no such file");
  note("rename", from, hash64(to));
  const NodePtr node = found->second;
  entries_.erase(found);
  removed_.erase(to);
  entries_[to] = node;
  return {};
}

std::uint64_t SimFiles::used() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& [path, node] : entries_) sum += node->visible.size();
  return sum;
}

Bytes SimFiles::visible(const std::string& path) const {
  const auto found = entries_.find(path);
  return found == entries_.end() ? Bytes() : found->second->visible;
}

Bytes SimFiles::durable(const std::string& path) const {
  const auto found = entries_.find(path);
  return found == entries_.end() ? Bytes() : found->second->durable;
}

void SimFiles::damage(const std::string& path, std::uint64_t bit) {
  const auto found = entries_.find(path);
  if (found == entries_.end()) return;
  for (Bytes* content : {&found->second->visible, &found->second->durable})
    if (bit / 8 < content->size())
      (*content)[bit / 8] = static_cast<char>((*content)[bit / 8] ^ (1 << (bit % 8)));
}

std::vector<std::string> SimFiles::paths() const {
  std::vector<std::string> all;
  for (const auto& [path, node] : entries_) all.push_back(path);
  return all;
}

}  // namespace sluice::sim
