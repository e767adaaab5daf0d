#include "flow/history.hpp"

namespace sluice::flow {
namespace {

struct Fold {
  History& history;
  void operator()(Begun& r) const { history.begun = std::move(r); }
  void operator()(Intent& r) const {
    history.bag = r.bag;
    history.intents.push_back(std::move(r));
    // Something outside may have been changed since: there is no going on from the pause.
    history.paused.reset();
    history.woken.reset();
  }
  void operator()(Decided& r) const {
    if (!r.bag.empty()) history.bag = r.bag;
    history.decided = std::move(r);
  }
  void operator()(Finished& r) const { history.finished.push_back(r.step); }
  void operator()(Ended& r) const {
    if (r.kind != EndKind::in_doubt) history.ended = r.kind;
  }
  void operator()(Paused& r) const {
    history.bag = r.bag;
    history.paused = std::move(r);
    history.woken.reset();
  }
  void operator()(Woken& r) const { history.woken = std::move(r); }
  void operator()(Settled& r) const {
    history.ended = r.kind;
    history.settled = std::move(r);
  }
};

}  // namespace

Result<History> fold(const std::vector<store::JournalRow>& rows) {
  History history;
  for (const auto& row : rows) {
    auto records = decode_row(row.record);
    if (!records)
      return fail(records.error().at("exchange " + to_string(row.exchange) + ", record " +
                                     std::to_string(row.n)));
    for (auto& record : *records) std::visit(Fold{history}, record);
    history.next_record = row.n + 1;
  }
  return history;
}

}  // namespace sluice::flow
