// `sluice breakers watch` beside a server that is killed and comes back.
#include <gmock/gmock.h>
#include <poll.h>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

std::string wait_for(const std::string& path, const std::string& text) {
  std::string all;
  for (int i = 0; i < 3'000 && all.find(text) == std::string::npos; ++i) {
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 10);
    all = read_file(path);
  }
  return all;
}

TEST(Watch, RES_41_breakers_are_watched_over_a_crash_of_the_server) {
  const testing_support::TempFolder folder;
  std::ofstream(folder.file("rules.toml")) << "[guard.\"codes\".breaker]\n";
  std::ofstream(folder.file("sluice.toml")) << "[guards]\nrules = \"rules.toml\"\n";
  const auto force = [](const Serving& at, const char* state) {
    return at.ask({"breakers", "force", "codes", state, "--reason", "a test"});
  };
  Serving first(folder.path(), {"--config", "sluice.toml"});
  const Ran forced = force(first, "forced_open");
  ASSERT_EQ(forced.status, 0) << forced.err;
  const std::string out = folder.file("watch.out"), err = folder.file("watch.err");
  const int to_out = open(out.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const int to_err = open(err.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const pid_t watch = spawn(folder.path(), {"breakers", "watch", "--interval-ms", "20"}, first.settings(), to_out, to_err);
  close(to_out);
  close(to_err);
  // What was before its first look is not news.
  for (int i = 0; i < 200 && read_file(out).empty(); ++i) ASSERT_EQ(force(first, i % 2 == 0 ? "closed" : "forced_open").status, 0);
  EXPECT_THAT(read_file(out), HasSubstr("codes"));
  first.crash();
  EXPECT_THAT(wait_for(err, "still watching"), HasSubstr("no answer from " + first.address() + "; still watching"));
  Serving second(folder.path(), {"--config", "sluice.toml", "--listen", first.address().substr(7)}, {{"SLUICE_TOKEN", first.token()}});
  ASSERT_FALSE(second.address().empty()) << read_file(folder.file("server.err"));
  second.use_token(first.token());
  EXPECT_THAT(wait_for(err, "answers again"), HasSubstr("answers again"));
  ASSERT_EQ(force(second, "disabled").status, 0);
  EXPECT_THAT(wait_for(out, "disabled"), HasSubstr("disabled")) << "a new server counts its changes from the start";
  kill(watch, SIGTERM);
  int status = 0;
  waitpid(watch, &status, 0);
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

}  // namespace
}  // namespace sluice::cli_test
