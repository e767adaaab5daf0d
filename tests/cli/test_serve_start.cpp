// What `sluice serve` says of a configuration it cannot serve with, as `config check` does, and of a store without an
// administrator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

class ServeStart : public testing::Test {
 protected:
  testing_support::TempFolder folder;

  void write(const std::string& text) { std::ofstream(folder.file("sluice.toml")) << text; }
};

TEST_F(ServeStart, CONSOLE_9_check_and_serve_refuse_the_same_with_the_place) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"[http]\nport = 0\naddress = \"0.0.0.0\"\n", "sluice.toml:3"},
      {"[http]\nport = 0\n[grpc]\ntls_cert = \"none.pem\"\n", "sluice.toml:4"},
      {"[http]\nport = 0\n[guards]\nrules = \"none.toml\"\n", "sluice.toml:4"}};
  for (const auto& [text, place] : cases) {
    SCOPED_TRACE(text);
    write(text);
    const Ran checked = run(folder.path(), {"config", "check", "sluice.toml"});
    const Ran served = run(folder.path(), {"serve", "--config", "sluice.toml", "--store", "s.db"});
    EXPECT_EQ(checked.status, 2);
    EXPECT_EQ(served.status, 2);
    EXPECT_THAT(checked.err, HasSubstr(place));
    EXPECT_EQ(served.err, checked.err);
  }
}

TEST_F(ServeStart, CONSOLE_9_a_wrong_log_level_is_told_by_its_flag) {
  const Ran served = run(folder.path(), {"serve", "--listen", "127.0.0.1:0", "--log-level", "loud"});
  EXPECT_NE(served.status, 0);
  EXPECT_THAT(served.err, HasSubstr("--log-level"));
  EXPECT_THAT(served.err, testing::Not(HasSubstr("SLUICE_LOG_LEVEL")));
}

TEST_F(ServeStart, CONSOLE_9_an_address_that_was_given_by_a_flag_is_blamed_on_the_flag) {
  const std::pair<const char*, Arguments> cases[] = {{"--listen: http.address 0.0.0.0", {"--listen", "0.0.0.0:0"}},
                                                     {"--grpc-listen: grpc.listen 0.0.0.0:0", {"--listen", "127.0.0.1:0", "--grpc-listen", "0.0.0.0:0"}}};
  for (const auto& [blamed, flags] : cases) {
    Arguments arguments{"serve", "--store", "s.db"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Ran served = run(folder.path(), arguments);
    EXPECT_EQ(served.status, 2);
    EXPECT_THAT(served.err, HasSubstr(blamed));
    EXPECT_THAT(served.err, testing::Not(HasSubstr("SLUICE_")));
  }
  const Ran variable = run(folder.path(), {"serve", "--store", "s.db", "--listen", "0"}, {{"SLUICE_HTTP_ADDRESS", "0.0.0.0"}});
  EXPECT_THAT(variable.err, HasSubstr("SLUICE_HTTP_ADDRESS"));
}

TEST_F(ServeStart, CONSOLE_4_a_store_with_tokens_but_no_administrator_is_warned_of) {
  ASSERT_EQ(run(folder.path(), {"token", "create", "till", "--grant", "shop:*", "--store", "s.db"}).status, 0);
  {
    Serving server(folder.path(), {"--store", "s.db"});
    EXPECT_EQ(server.token(), "");
    EXPECT_EQ(server.stop(), 0);
  }
  EXPECT_THAT(read_file(folder.file("server.err")), HasSubstr("sluice token create admin --grant '*:*'"));
  ASSERT_EQ(run(folder.path(), {"token", "create", "admin", "--grant", "*:*", "--store", "s.db"}).status, 0);
  std::ofstream(folder.file("server.err"), std::ios::trunc);
  Serving server(folder.path(), {"--store", "s.db"});
  EXPECT_EQ(server.stop(), 0);
  EXPECT_THAT(read_file(folder.file("server.err")), testing::Not(HasSubstr("grants everything")));
}

}  // namespace
}  // namespace sluice::cli_test
